/** Something that must not take longer than a time it was given. */
export interface Expiring {
  expired(): void;
}

/**
 * Time limits of a few fixed lengths. Each length has a queue of its own that is in order by construction,
 * so arming, disarming and finding the next one cost the same however many there are.
 */
export class Deadlines {
  readonly #queues = new Map<number, Map<Expiring, number>>();

  constructor(readonly now: () => number = () => performance.now()) {}

  /** `target.expired()` will be called in `milliseconds`, counted anew if it was armed for as long before. */
  arm(target: Expiring, milliseconds: number): void {
    let queue = this.#queues.get(milliseconds);
    if (queue === undefined) this.#queues.set(milliseconds, queue = new Map());
    queue.delete(target);
    queue.set(target, this.now() + milliseconds);
  }

  disarm(target: Expiring): void {
    for (const queue of this.#queues.values()) queue.delete(target);
  }

  /** Milliseconds until the next one, rounded up, or -1 when there is none. */
  wait(): number {
    let next = Infinity;
    for (const queue of this.#queues.values()) {
      for (const due of queue.values()) {
        next = Math.min(next, due);
        break;
      }
    }
    return next === Infinity ? -1 : Math.max(0, Math.ceil(next - this.now()));
  }

  /** Calls those that are due. */
  run(): void {
    const now = this.now();
    for (const queue of this.#queues.values()) {
      for (const [target, due] of queue) {
        if (due > now) break;
        queue.delete(target);
        target.expired();
      }
    }
  }
}
