export function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/**
 * Asks again every 20 ms until `isTrue` says so.
 * @throws {Error} with what `describe` says after `timeoutMs`.
 */
export async function until(
  isTrue: () => Promise<boolean> | boolean,
  timeoutMs: number,
  describe: () => string,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!await isTrue()) {
    if (Date.now() > deadline) throw new Error(`${describe()} (after ${timeoutMs} ms)`);
    await delay(20);
  }
}
