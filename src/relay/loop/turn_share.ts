import type { EventLoop, Handler } from "./event_loop.ts";

/** How long one pod's tunnels may have a worker in one turn of its loop, before others have it. */
export const SHARE_MILLISECONDS = 4;

/**
 * One pod's share of a worker's time. How many bytes a peer sends says little of the work that they
 * make (a frame of one byte, a handshake), so it is the time that is shared: whose pod has had its
 * share waits in a queue, and is called again in the next turns, in order.
 */
export class TurnShare implements Handler {
  readonly #waiting = new Set<Handler>();
  /** Who is called from the queue right now. */
  #called: Handler | undefined;
  #turn = -1;
  #spent = 0;

  constructor(readonly loop: EventLoop) {}

  /** Whether a handler may work now. Else it is called again, without events, when it may. */
  admits(handler: Handler): boolean {
    if (handler === this.#called) return true;
    if (this.#waiting.size === 0 && !this.isSpent) return true;
    if (this.#waiting.size === 0) this.loop.again(this);
    this.#waiting.add(handler);
    return false;
  }

  get isSpent(): boolean {
    return this.#turn === this.loop.turns && this.#spent >= SHARE_MILLISECONDS;
  }

  /** Somebody has worked for so long. */
  spend(milliseconds: number): void {
    if (this.#turn !== this.loop.turns) {
      this.#turn = this.loop.turns;
      this.#spent = 0;
    }
    this.#spent += milliseconds;
  }

  ready(): void {
    for (const handler of this.#waiting) {
      if (this.isSpent) break;
      this.#waiting.delete(handler);
      this.#called = handler;
      this.loop.call(handler, 0);
      this.#called = undefined;
    }
    if (this.#waiting.size > 0) this.loop.again(this);
  }

  /** Whatever a handler throws is its own failure (`EventLoop.call`). */
  failed(error: unknown): void {
    throw error;
  }
}
