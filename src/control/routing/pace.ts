/** Keeps work that is asked for often, and takes nobody knows how long, at a small share of the time. */
export class Pace {
  #notBefore = -Infinity;

  /** Does the work if it is time, or if it must be; undefined when it was not done. */
  run<T>(must: boolean, work: () => T): T | undefined {
    const began = performance.now();
    if (!must && began < this.#notBefore) return undefined;
    const result = work();
    const ended = performance.now();
    this.#notBefore = ended + (ended - began) * (1 / SHARE - 1);
    return result;
  }
}

/** Of one core. */
const SHARE = 1 / 1000;
