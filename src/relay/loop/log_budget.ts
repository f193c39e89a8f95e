/** What a line says beside its sentence. */
export type LogFields = Readonly<Record<string, string | number>>;

/** How many lines of log there may be: some at once, and so many a millisecond in the long run. */
export interface LogRate {
  readonly burst: number;
  readonly perMillisecond: number;
}

/** Thins out a flood of lines, and knows how many it has left out. */
export class LogBudget {
  readonly #rate: LogRate;
  #lines: number;
  #refilled = 0;
  #suppressed = 0;

  constructor(rate: LogRate) {
    this.#rate = rate;
    this.#lines = rate.burst;
  }

  /**
   * What a line with these fields says that is written `now`, in milliseconds that only grow: also how many were left out
   * since the last one, if any were. Undefined when this one is left out, too.
   */
  take(fields: LogFields, now: number): LogFields | undefined {
    const { burst, perMillisecond } = this.#rate;
    this.#lines = Math.min(burst, this.#lines + (now - this.#refilled) * perMillisecond);
    this.#refilled = now;
    if (this.#lines < 1) {
      this.#suppressed++;
      return undefined;
    }
    this.#lines--;
    const suppressed = this.#suppressed;
    this.#suppressed = 0;
    return suppressed === 0 ? fields : { ...fields, suppressed };
  }
}
