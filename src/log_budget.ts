/** What a line of a relay worker says beside its sentence. */
export type LogFields = Readonly<Record<string, string | number>>;

/** How many lines of log there may be: some at once, and so many a millisecond in the long run. */
export interface LogRate {
  readonly burst: number;
  readonly perMillisecond: number;
}

/** Thins out a flood of lines. */
export class LogBudget {
  #lines: number;
  #refilled = 0;

  constructor(readonly rate: LogRate) {
    this.#lines = rate.burst;
  }

  /**
   * Whether one more line may be written `now`, in milliseconds that only grow.
   *
   * @param most a rate that is in force in place of the budget's own, where that is higher.
   */
  take(now: number, most = Infinity): boolean {
    const perMillisecond = Math.min(this.rate.perMillisecond, most);
    this.#lines = Math.min(this.rate.burst, this.#lines + (now - this.#refilled) * perMillisecond);
    this.#refilled = now;
    if (this.#lines < 1) return false;
    this.#lines--;
    return true;
  }

  /** Whether it is as good as a new one: nothing was written for long enough. */
  isFull(now: number): boolean {
    const { burst, perMillisecond } = this.rate;
    return this.#lines + (now - this.#refilled) * perMillisecond >= burst;
  }
}

/** What each of many may write, and what all of them together may in the long run. */
export interface LogShareRates {
  readonly each: LogRate;
  readonly perMillisecond: number;
}

/**
 * A budget for each namespace: one that floods the log spends its own. In the long run those that
 * write at the moment have equal parts of what all may write; whoever was silent has saved a burst,
 * which nobody else can spend.
 */
export class LogShares {
  readonly #budgets = new Map<string, LogBudget>();
  #forgot = -Infinity;

  constructor(readonly rates: LogShareRates) {}

  /** How many have an entry: those that have written lately. */
  get size(): number {
    return this.#budgets.size;
  }

  /**
   * Whether one more line may be written for `namespace` at `now`, in milliseconds that only grow.
   */
  take(namespace: string, now: number): boolean {
    this.#forget(now);
    const budget = this.#budgets.get(namespace) ?? new LogBudget(this.rates.each);
    this.#budgets.set(namespace, budget);
    return budget.take(now, this.rates.perMillisecond / this.#budgets.size);
  }

  /** Those that a new budget would be no gain for, and should there be too many, the oldest. */
  #forget(now: number): void {
    if (now - this.#forgot >= FORGET_MILLISECONDS) {
      this.#forgot = now;
      for (const [namespace, budget] of this.#budgets) {
        if (budget.isFull(now)) this.#budgets.delete(namespace);
      }
    }
    if (this.#budgets.size < MOST_NAMESPACES) return;
    const [oldest] = this.#budgets.keys();
    if (oldest !== undefined) this.#budgets.delete(oldest);
  }
}

/** Counts the lines that are left out, so that the next one that is not can say so. */
export class Suppressed {
  #count = 0;

  /**
   * What a line with these fields says, with how many were left out since the last one, if any
   * were: also those that an earlier budget has left out and this line was to say. Undefined when
   * it is left out, too.
   */
  say<Fields extends Readonly<Record<string, unknown>>>(
    isTaken: boolean,
    fields: Fields,
  ): Fields | (Fields & { readonly suppressed: number }) | undefined {
    const earlier = typeof fields.suppressed === "number" ? fields.suppressed : 0;
    this.#count += earlier;
    if (!isTaken) {
      this.#count++;
      return undefined;
    }
    const suppressed = this.#count;
    this.#count = 0;
    return suppressed === 0 ? fields : { ...fields, suppressed };
  }
}

/** Its part of what a node may write, for one of its relay workers. */
export function ofWorkers(workers: number, { each, perMillisecond }: LogShareRates): LogShareRates {
  return { each: ofOne(workers, each), perMillisecond: perMillisecond / workers };
}

/**
 * As {@link ofWorkers}. The kernel may give one worker all of a pod's connections: some lines are
 * left for that.
 */
export function ofOne(workers: number, { burst, perMillisecond }: LogRate): LogRate {
  return {
    burst: Math.max(Math.min(burst, LEAST_BURST), Math.ceil(burst / workers)),
    perMillisecond: perMillisecond / workers,
  };
}

const LEAST_BURST = 10;

const FORGET_MILLISECONDS = 1_000;

/** More than a node has: pods are some hundred. */
export const MOST_NAMESPACES = 1_024;

/**
 * Lines about a namespace's pods, on one node: enough to see what happens, too little for a hostile
 * tenant to fill a disk or to have others' lines rotated away.
 */
export const NAMESPACE_LINES: LogShareRates = {
  each: { burst: 300, perMillisecond: 0.02 },
  perMillisecond: 0.1,
};

/**
 * Of these in the long run a quarter for one pod: its lines must not take the place of its
 * neighbours'.
 */
export const POD_LINES: LogRate = { burst: 50, perMillisecond: 0.005 };
