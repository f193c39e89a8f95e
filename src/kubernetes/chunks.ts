/**
 * The body of a response as it comes, until the signal ends it. The signal was given to fetch
 * already, but when V8 collects garbage while a body is read, that may be forgotten (Deno 2.9.6): a
 * signer that was told to end read on for ever.
 *
 * @throws the signal's reason, or what reading throws.
 */
export async function* chunksOf(
  response: Response,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  const cancel = () => void reader.cancel(signal.reason).catch(() => {}); // whoever reads is told
  signal.addEventListener("abort", cancel, { once: true });
  try {
    for (;;) {
      signal.throwIfAborted();
      const { value, done } = await reader.read();
      if (done) break;
      yield value;
    }
    signal.throwIfAborted(); // what is cancelled ends in good order
  } finally {
    signal.removeEventListener("abort", cancel);
    cancel(); // whoever has had enough leaves the rest
  }
}
