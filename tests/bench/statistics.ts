import type { ContenderName } from "./contenders/contender.ts";
import type { Figure, Outcome, Sample } from "./model.ts";

export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

/** One contender's place in a figure. */
export interface Standing {
  /** The median of the rounds; undefined when it was not measured. */
  readonly value?: number;
  /** Of the rounds' ratios to the baseline, each within its round. */
  readonly ratio?: Spread;
  /** Why there is no value. */
  readonly note?: string;
}

/** The middle value, or the mean of the two in the middle. NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return low === undefined || high === undefined ? NaN : (low + high) / 2;
}

/** Undefined of nothing. */
export function spread(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) };
}

/** What each contender's rounds come to for one figure. */
export function standings(
  figure: Figure,
  { rounds, notes }: Outcome,
  names: readonly ContenderName[],
): Map<ContenderName, Standing> {
  const values = rounds.map((round) => valuesOf(figure, round));
  const baseline = figure.baseline ?? "haproxy";
  const standingOf = (name: ContenderName): Standing => {
    const note = notes.get(name);
    const own = values.flatMap((round) => round.get(name) ?? []);
    if (own.length === 0) return { note: note ?? "–" };
    const ratios = values.flatMap((round) => ratio(round.get(name), round.get(baseline)));
    return { value: median(own), ratio: spread(ratios), note };
  };
  return new Map(names.map((name) => [name, standingOf(name)]));
}

/** Each contender's value of one round: the median of its runs. */
function valuesOf(
  { key, added }: Figure,
  round: ReadonlyMap<ContenderName, readonly Sample[]>,
): Map<ContenderName, number> {
  const values = new Map<ContenderName, number>();
  for (const [name, samples] of round) {
    const found = samples.flatMap((sample) => sample[key] ?? []).filter(Number.isFinite);
    if (found.length > 0) values.set(name, median(found));
  }
  if (!added) return values;
  const direct = values.get("direct");
  if (direct === undefined) return new Map();
  const others = [...values].filter(([name]) => name !== "direct");
  return new Map(others.map(([name, value]) => [name, value - direct]));
}

/** None where a difference came out negative: noise was greater than what was to be measured. */
function ratio(value: number | undefined, base: number | undefined): number[] {
  return value !== undefined && base !== undefined && value > 0 && base > 0 ? [value / base] : [];
}
