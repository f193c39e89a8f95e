/** Resolves after so many milliseconds. */
export function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/**
 * Resolves after so many milliseconds, or when its entry in `wakers` is called, which is there
 * meanwhile.
 *
 * @throws the signal's reason.
 */
export function pause(
  milliseconds: number,
  signal: AbortSignal,
  wakers?: Set<() => void>,
): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      wakers?.delete(end);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(end, Math.max(0, milliseconds));
    signal.addEventListener("abort", end, { once: true });
    wakers?.add(end);
  });
}

/**
 * A time, give or take a part of it by chance, so that many do not do the same at the same moment.
 */
export function jittered(milliseconds: number, part = 0.1): number {
  return milliseconds * (1 - part + 2 * part * Math.random());
}
