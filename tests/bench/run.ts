import { delay } from "../lab/delay.ts";
import type { ContenderName } from "./contenders/contender.ts";
import type { Measure, Outcome, Runnable, Sample, Stage } from "./model.ts";

export interface RunOptions {
  readonly rounds: number;
  readonly seconds: number;
  /** Called as each round begins. */
  readonly progress: (round: number, rounds: number) => void;
  /** Milliseconds before a failed run is tried again: a listener may still be starting. */
  readonly pause?: number;
}

/**
 * Runs a measure on all contenders, interleaved (A-B-C-C-B-A), so that drift hits all alike. One
 * that fails three times in a row takes no further part, and begins the next measure with new
 * processes.
 */
export async function runMeasure<Of extends Runnable>(
  measure: Measure<Of>,
  usual: readonly Of[],
  { rounds, seconds, progress, pause = 1_000 }: RunOptions,
): Promise<Outcome> {
  await using stage = await (measure.open?.(usual) ?? asUsual(usual));
  const notes = new Map(stage.notes);
  for (const contender of stage.contenders) {
    const reason = measure.absent?.(contender);
    if (reason !== undefined) notes.set(contender.name, reason);
  }
  const outcome: Map<ContenderName, Sample[]>[] = [];
  const total = Math.min(rounds, measure.mostRounds ?? rounds);
  for (let number = 0; number < total; number++) {
    progress(number + 1, total);
    const round = new Map<ContenderName, Sample[]>();
    for (const contender of passes(stage.contenders, measure.passes ?? 2)) {
      if (notes.has(contender.name)) continue;
      try {
        const sample = await tried(() => measure.run(contender, seconds), pause);
        round.set(contender.name, [...round.get(contender.name) ?? [], sample]);
      } catch (error) {
        notes.set(contender.name, `failed: ${reasonOf(error)}`);
        await contender.restart().catch(() => {}); // the next measure will tell
      }
    }
    outcome.push(round);
  }
  return { rounds: outcome, notes };
}

/** Forwards, backwards, forwards… */
export function passes<Item>(items: readonly Item[], count: number): Item[] {
  return Array.from(
    { length: count },
    (_, pass) => pass % 2 === 0 ? [...items] : [...items].reverse(),
  ).flat();
}

function asUsual<Of extends Runnable>(contenders: readonly Of[]): Stage<Of> {
  return { contenders, notes: new Map(), [Symbol.asyncDispose]: () => Promise.resolve() };
}

async function tried(run: () => Promise<Sample>, pause: number): Promise<Sample> {
  for (let attempt = 1;; attempt++) {
    try {
      return await run();
    } catch (error) {
      if (attempt === 3) throw error;
      await delay(pause);
    }
  }
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
