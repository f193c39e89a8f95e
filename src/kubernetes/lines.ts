/**
 * readLines yields the lines of a stream of UTF-8, without their ends, in batches as they arrive.
 * What follows the last newline when the stream ends was cut, and is dropped.
 *
 * @throws {RangeError} when a line has more than `maxBytes`.
 */
export async function* readLines(
  chunks: AsyncIterable<Uint8Array>,
  maxBytes: number,
): AsyncGenerator<string[]> {
  const decoder = new TextDecoder();
  let rest: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    const lines: string[] = [];
    let from = 0;
    for (let end; (end = chunk.indexOf(NEWLINE, from)) >= 0; from = end + 1) {
      rest.push(chunk.subarray(from, end));
      lines.push(decoder.decode(joined(rest)));
      rest = [];
      size = 0;
    }
    if (from < chunk.length) {
      rest.push(chunk.subarray(from));
      size += chunk.length - from;
      if (size > maxBytes) throw new RangeError(`a line of more than ${maxBytes} bytes`);
    }
    if (lines.length > 0) yield lines;
  }
}

function joined(parts: Uint8Array[]): Uint8Array {
  const [first] = parts;
  if (first !== undefined && parts.length === 1) return first;
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const NEWLINE = 10;
