/** Collects the lines of a process's output and lets callers wait for one of them. */
export class Lines {
  readonly all: string[] = [];
  /** Resolves when the stream has ended and every line is in `all`. */
  readonly ended: Promise<void>;
  readonly #waiters = new Set<Waiter>();
  #done = false;

  constructor(stream: ReadableStream<Uint8Array>, onLine?: (line: string) => void) {
    this.ended = this.#collect(stream, onLine);
  }

  /**
   * The first line from index `from` on for which `predicate` holds, seen already or still to come.
   * @throws {Error} when the stream ends or `timeoutMs` pass without one; it shows the last lines.
   */
  wait(predicate: (line: string) => boolean, timeoutMs: number, from = 0): Promise<string> {
    const seen = this.all.slice(from).find(predicate);
    if (seen !== undefined) return Promise.resolve(seen);
    if (this.#done) return Promise.reject(this.#failure("the output ended"));
    return new Promise((resolve, reject) => {
      const finish = (settle: () => void) => {
        clearTimeout(timer);
        this.#waiters.delete(waiter);
        settle();
      };
      const waiter: Waiter = {
        offer: (line) => {
          try {
            if (predicate(line)) finish(() => resolve(line));
          } catch (error) {
            finish(() => reject(error)); // A predicate that throws must not stop the collecting.
          }
        },
        end: () => finish(() => reject(this.#failure("the output ended"))),
      };
      const timer = setTimeout(
        () => finish(() => reject(this.#failure(`${timeoutMs} ms passed`))),
        timeoutMs,
      );
      this.#waiters.add(waiter);
    });
  }

  tail(count = 20): string {
    return this.all.slice(-count).join("\n");
  }

  async #collect(stream: ReadableStream<Uint8Array>, onLine?: (line: string) => void) {
    const decoder = new TextDecoder();
    let rest = "";
    const add = (line: string) => {
      this.all.push(line);
      for (const waiter of [...this.#waiters]) waiter.offer(line);
      onLine?.(line);
    };
    for await (const chunk of stream) {
      const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = parts.pop() ?? "";
      parts.forEach(add);
    }
    if (rest !== "") add(rest);
    this.#done = true;
    for (const waiter of [...this.#waiters]) waiter.end();
  }

  #failure(why: string): Error {
    return new Error(`No such line: ${why}. The last lines were:\n${this.tail() || "(none)"}`);
  }
}

interface Waiter {
  offer(line: string): void;
  end(): void;
}
