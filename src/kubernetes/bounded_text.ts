import { chunksOf } from "./chunks.ts";
import { TooLarge } from "./errors.ts";

/**
 * The body of a response as text. One that is larger is read no further than `maxBytes`, whatever
 * its header says: what a compressed body comes to shows when it is read.
 *
 * @param what was asked for, for the error: `GET /api/v1/pods`.
 * @throws {TooLarge} when there are more bytes; the signal's reason; what reading throws.
 */
export async function boundedText(
  response: Response,
  signal: AbortSignal,
  maxBytes: number,
  what: string,
): Promise<string> {
  const decoder = new TextDecoder();
  const parts: string[] = [];
  let size = 0;
  for await (const chunk of chunksOf(response, signal)) {
    size += chunk.length;
    if (size > maxBytes) {
      throw new TooLarge(`the answer to ${what} has more than ${maxBytes} bytes`);
    }
    parts.push(decoder.decode(chunk, { stream: true }));
  }
  parts.push(decoder.decode());
  return parts.join("");
}
