/**
 * An error as people read it, in a log, on a terminal or in a status: its message and its causes'
 * (fetch alone says no more than "fetch failed"), on one line of at most 500 printable characters.
 * A cause that the text before it has quoted already is not said again.
 *
 * @example
 * ```ts
 * import { strictEqual } from "node:assert/strict";
 *
 * const error = new Error("cannot ask the agent", { cause: new Error("connection refused") });
 * strictEqual(errorText(error), "cannot ask the agent: connection refused");
 * ```
 */
export function errorText(error: unknown): string {
  let text = "";
  let one = error;
  for (let depth = 0; one !== undefined && one !== null && depth < MAX_CAUSES; depth++) {
    const message = one instanceof Error ? one.message || one.name : String(one);
    if (text === "") text = message;
    else if (!text.includes(message)) text += `: ${message}`;
    one = one instanceof Error ? one.cause : undefined;
  }
  const line = text.replace(/\s+/g, " ").trim() || "unknown error";
  return printable(line).slice(0, MAX_CHARACTERS);
}

/**
 * `text` with its control and formatting characters escaped, so that nobody forges a line with it.
 */
export function printable(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`,
  );
}

/** An error chain may be endless. */
const MAX_CAUSES = 5;

const MAX_CHARACTERS = 500;
