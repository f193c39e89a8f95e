import type { Measure, Outcome } from "./model.ts";
import type { Row } from "./table.ts";

export interface Report {
  readonly machine: readonly string[];
  readonly rounds: number;
  readonly seconds: number;
  readonly results: readonly { measure: Measure; outcome: Outcome }[];
  readonly rows: readonly Row[];
}

/** Every raw value, and what the table makes of them. */
export function jsonReport({ machine, rounds, seconds, results, rows }: Report): string {
  return JSON.stringify(
    {
      ...{ machine, rounds, seconds },
      rows: rows.map(({ figure, standings }) => ({
        ...figure,
        contenders: Object.fromEntries(standings),
      })),
      raw: results.map(({ measure, outcome }) => ({
        figures: measure.figures.map(({ key, name }) => ({ key, name })),
        rounds: outcome.rounds.map((round) => Object.fromEntries(round)),
        notes: Object.fromEntries(outcome.notes),
      })),
    },
    undefined,
    2,
  ) + "\n";
}
