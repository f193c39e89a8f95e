import { delay } from "../lab/delay.ts";
import type { Contender, ContenderName } from "./contenders/contender.ts";
import type { Measure, Outcome, Sample, Stage } from "./model.ts";

export interface RunOptions {
  readonly rounds: number;
  readonly seconds: number;
  /** Called as each round begins. */
  readonly progress: (round: number, rounds: number) => void;
  /** Milliseconds before a failed run is tried again: a listener may still be starting. */
  readonly pause?: number;
}

/**
 * Runs a measure on all contenders, interleaved (A-B-C-C-B-A), so that drift hits all alike. One that fails
 * twice in a row takes no further part; the others go on.
 */
export async function runMeasure(
  measure: Measure,
  usual: readonly Contender[],
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

function asUsual(contenders: readonly Contender[]): Stage {
  return { contenders, notes: new Map(), [Symbol.asyncDispose]: () => Promise.resolve() };
}

async function tried(run: () => Promise<Sample>, pause: number): Promise<Sample> {
  try {
    return await run();
  } catch {
    await delay(pause);
    return await run();
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
