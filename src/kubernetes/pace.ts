import { pause } from "../waiting.ts";
import { isOutage, NoAnswer, retryAfterMilliseconds } from "./errors.ts";

/**
 * Pace spares an API server that is down or overloaded: until a request has succeeded, and after
 * each failure, requests go out at most every `interval` milliseconds, however many wait.
 */
export class Pace {
  readonly #interval: number;
  #failing = true;
  /** When the next request may go out while the server fails. */
  #next = 0;
  /** Ends the waits of those whose turn has not come. */
  readonly #wakers = new Set<() => void>();

  constructor(interval: number) {
    this.#interval = interval;
  }

  /** @throws what `request` throws, or the signal's reason while it waits for its turn. */
  async run<T>(request: () => Promise<T>, signal: AbortSignal): Promise<T> {
    while (this.#failing) {
      const now = performance.now();
      if (this.#next <= now) {
        this.#next = now + this.#interval;
        break;
      }
      await pause(this.#next - now, signal, this.#wakers);
    }
    signal.throwIfAborted();
    try {
      const answer = await request();
      this.#recover();
      return answer;
    } catch (error) {
      if (!isOutage(error)) this.#recover();
      else if (!signal.aborted || signal.reason instanceof NoAnswer) this.failed(error);
      throw error;
    }
  }

  /** Something failed that tells that the server is in trouble. */
  failed(error: unknown): void {
    const wait = Math.max(this.#interval, retryAfterMilliseconds(error));
    this.#next = Math.max(this.#next, performance.now() + wait);
    this.#failing = true;
  }

  #recover(): void {
    if (!this.#failing) return;
    this.#failing = false;
    for (const wake of this.#wakers) wake();
  }
}
