/** Something that must not take longer than a time it was given. */
export interface Expiring {
  expired(): void;
  /** An `expired` that threw: a bug, which must cost its own connection only. */
  failed?(error: unknown): void;
}

/**
 * Time limits of a few fixed lengths, at most one for each target. Each length has a queue of its
 * own that is in order by construction, so arming, disarming and finding the next one cost the same
 * however many there are.
 */
export class Deadlines {
  readonly #queues = new Map<number, Queue>();
  /** The queue that a target waits in. */
  readonly #armed = new Map<Expiring, Queue>();

  constructor(readonly now: () => number = () => performance.now()) {}

  /**
   * `target.expired()` will be called in `milliseconds`, counted anew whatever it was armed for
   * before.
   */
  arm(target: Expiring, milliseconds: number): void {
    this.disarm(target);
    let queue = this.#queues.get(milliseconds);
    if (queue === undefined) this.#queues.set(milliseconds, queue = new Queue());
    queue.add(target, this.now() + milliseconds);
    this.#armed.set(target, queue);
  }

  disarm(target: Expiring): void {
    const queue = this.#armed.get(target);
    if (queue === undefined) return;
    queue.remove(target);
    this.#armed.delete(target);
  }

  /** Milliseconds until the next one, rounded up, or -1 when there is none. */
  wait(): number {
    let next = Infinity;
    for (const queue of this.#queues.values()) {
      next = Math.min(next, queue.first()?.due ?? Infinity);
    }
    return next === Infinity ? -1 : Math.max(0, Math.ceil(next - this.now()));
  }

  /** Calls those that were due at a time of the clock. */
  run(at = this.now()): void {
    for (const queue of this.#queues.values()) {
      for (let entry = queue.first(); entry && entry.due <= at; entry = queue.first()) {
        this.disarm(entry.target);
        expire(entry.target);
      }
    }
  }
}

function expire(target: Expiring): void {
  try {
    target.expired();
  } catch (error) {
    try {
      if (target.failed === undefined) throw error;
      target.failed(error);
    } catch (again) {
      console.error(`kube-gateway relay: at a deadline: ${again}`);
    }
  }
}

interface Entry {
  readonly target: Expiring;
  readonly due: number;
}

/**
 * First in, first out. What is removed from the middle stays as a gap until the head has reached
 * it.
 */
class Queue {
  #entries: (Entry | undefined)[] = [];
  #head = 0;
  readonly #places = new Map<Expiring, number>();
  /** How many entries have been dropped from the front: a place is an index plus this. */
  #dropped = 0;

  add(target: Expiring, due: number): void {
    this.#places.set(target, this.#entries.length + this.#dropped);
    this.#entries.push({ target, due });
  }

  remove(target: Expiring): void {
    const place = this.#places.get(target);
    if (place === undefined) return;
    this.#places.delete(target);
    this.#entries[place - this.#dropped] = undefined;
  }

  first(): Entry | undefined {
    while (this.#head < this.#entries.length && this.#entries[this.#head] === undefined) {
      this.#head++;
    }
    // Moving what is left costs as much as the gaps that were passed, so each entry is paid for
    // once.
    if (this.#head > this.#entries.length / 2) {
      this.#dropped += this.#head;
      this.#entries = this.#entries.slice(this.#head);
      this.#head = 0;
    }
    return this.#entries[this.#head];
  }
}
