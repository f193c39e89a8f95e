import type { Deadlines, Expiring } from "./deadlines.ts";

/** How many tunnels must have closed before their memory is worth a look: some 25 KB each. */
const MANY = 256;

/** Many tunnels close together; their memory is given back once, a moment later. */
const REST_MILLISECONDS = 1_000;

/**
 * Counts a worker's tunnels, and calls `release` some time after many of them, and most of all,
 * have closed.
 */
export class MemoryRelease implements Expiring {
  #open = 0;
  #highest = 0;

  constructor(readonly deadlines: Deadlines, readonly release: () => void) {}

  opened(): void {
    this.#open++;
    this.#highest = Math.max(this.#highest, this.#open);
  }

  closed(): void {
    this.#open--;
    const gone = this.#highest - this.#open;
    if (gone >= MANY && gone >= this.#open) this.deadlines.arm(this, REST_MILLISECONDS);
  }

  expired(): void {
    this.#highest = this.#open;
    this.release();
  }
}
