import type { Contender, ContenderName } from "./contenders/contender.ts";

/** What one run of a measure found, by the figures' keys. */
export type Sample = Readonly<Record<string, number>>;

/** One number of a measure: a row of the table. */
export interface Figure {
  /** Of the sample's entry. Figures of one measure may share it. */
  readonly key: string;
  readonly name: string;
  readonly unit: string;
  readonly better: "more" | "less";
  /** What counts is what comes on top of the direct connection's value of the same round. */
  readonly added?: boolean;
  /** What the ratio is to; haproxy without session resumption when not given. */
  readonly baseline?: ContenderName;
}

/** What a run needs to know of a contender. */
export type Runnable = Pick<Contender, "name" | "restart">;

/** One way of loading a contender, and what is to be learnt from it. */
export interface Measure<Of extends Runnable = Contender> {
  readonly figures: readonly Figure[];
  /**
   * How often a round passes over the contenders, forwards and backwards in turn; twice when not
   * given.
   */
  readonly passes?: number;
  /** No more rounds than this: what it finds does not vary. */
  readonly mostRounds?: number;
  /** Why a contender has no part in it. */
  absent?(contender: Of): string | undefined;
  /** Other contenders than the usual ones, for this measure alone. */
  open?(usual: readonly Of[]): Promise<Stage<Of>>;
  run(contender: Of, seconds: number): Promise<Sample>;
}

/** Contenders that a measure has opened for itself. */
export interface Stage<Of extends Runnable = Contender> extends AsyncDisposable {
  readonly contenders: readonly Of[];
  /** Why the others of the usual ones are not among them. */
  readonly notes: ReadonlyMap<ContenderName, string>;
}

/** Everything that was measured by one measure. */
export interface Outcome {
  /** For each round, each contender's samples. */
  readonly rounds: readonly ReadonlyMap<ContenderName, readonly Sample[]>[];
  /** Why a contender has no samples, or none from some round on. */
  readonly notes: ReadonlyMap<ContenderName, string>;
}
