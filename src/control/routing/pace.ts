import { clockMilliseconds } from "../../native/clock.ts";

/**
 * Keeps work that is asked for often, and takes nobody knows how long, at a small share of a
 * processor. What counts is the time that it had one: on a busy node it takes long, and is not to
 * be done more seldom for that.
 */
export class Pace {
  #notBefore = -Infinity;

  /** Does the work if it is time, or if it must be; undefined when it was not done. */
  run<T>(must: boolean, work: () => T): T | undefined {
    if (!must && performance.now() < this.#notBefore) return undefined;
    const before = clockMilliseconds("thread");
    const result = work();
    const used = clockMilliseconds("thread") - before;
    this.#notBefore = performance.now() + used * (1 / SHARE - 1);
    return result;
  }
}

/** Of one core. */
const SHARE = 1 / 1000;
