import type { Deadlines, Expiring } from "./deadlines.ts";

/** How many tunnels must have gone before their memory is worth a look: some 25 KB each. */
const MANY = 256;

/** The many end together; their memory is given back once, a moment later. */
const REST_MILLISECONDS = 1_000;

/** Counts a worker's tunnels, and calls `ebb` some time after many of them, and most of all, have gone. */
export class Tide implements Expiring {
  #now = 0;
  #highest = 0;

  constructor(readonly deadlines: Deadlines, readonly ebb: () => void) {}

  rise(): void {
    this.#now++;
    this.#highest = Math.max(this.#highest, this.#now);
  }

  fall(): void {
    this.#now--;
    const gone = this.#highest - this.#now;
    if (gone >= MANY && gone >= this.#now) this.deadlines.arm(this, REST_MILLISECONDS);
  }

  expired(): void {
    this.#highest = this.#now;
    this.ebb();
  }
}
