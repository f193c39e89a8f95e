import { type Cidr, firstAddress, parseCidr } from "../../cidr.ts";
import { CAPACITY, encodeRange, encodeRefusal } from "../../kernel/maps.ts";
import { logger } from "../../log.ts";
import type { BpfMap } from "../../native/bpf_map.ts";
import { rangeText, type Refusal } from "../rules/refusal.ts";
import { MirroredMap } from "./mirrored_map.ts";
import { fairly, type RoutingProblem } from "./problem.ts";

const log = logger("refusals");

/**
 * Keeps the kernel's map `refused_ranges`: where connections are refused, not taken for plain,
 * because what is known does not tell whether there is a peer. What is not known is refused before
 * anything else is written, and let go when everything else is.
 */
export class RefusedRanges {
  readonly #map: MirroredMap;
  /** All of this is refused when there is no room for the ranges one by one. */
  readonly #inside: readonly Cidr[];
  /** By who refuses. */
  readonly #refusals = new Map<string, readonly Refusal[]>([["always", [LINK_LOCAL]]]);
  /** The kernel's map may have more than is refused, from before or from an earlier agent. */
  #hasMore = true;
  #told = new Set<string>();

  constructor(map: BpfMap, inside: readonly Cidr[]) {
    this.#map = new MirroredMap(map);
    this.#inside = inside;
  }

  /**
   * From now on these are all that `source` refuses; what it refused before is let go by
   * {@link release}.
   */
  refuse(source: string, refusals: readonly Refusal[]): void {
    const before = this.#refusals.get(source);
    if (before?.length === refusals.length && before.every((each, i) => each === refusals[i])) {
      return;
    }
    this.#refusals.set(source, refusals);
    this.#map.add(this.#wanted());
    this.#hasMore = true;
    this.#log();
  }

  /** Lets go what nobody refuses any more, also what an earlier agent has refused. */
  release(): void {
    if (!this.#hasMore) return;
    this.#hasMore = false;
    this.#map.apply(this.#wanted());
  }

  problems(): RoutingProblem[] {
    const { failure } = this.#map;
    const problems = [...this.#refusals.values()].flat().flatMap(({ where, message, ranges }) =>
      message === undefined ? [] : { where, message, ranges: ranges.map(rangeText) }
    );
    const everything = this.#inside.map(rangeText);
    if (this.#isFull()) {
      const message =
        "more is unknown than can be refused one by one: every connection inside the " +
        "cluster is refused but those to known peers. See the other problems";
      problems.unshift({ where: "cluster", message, ranges: everything });
    }
    if (failure !== undefined) {
      const message =
        `what is to be refused cannot be written, and is tried again: ${failure.message}`;
      problems.unshift({ where: "map refused_ranges", message, ranges: everything });
    }
    return problems;
  }

  /** How many entries of the kernel's map were wrong. */
  audit(): number {
    if (this.#hasMore) return 0; // an earlier agent's are in force
    return this.#map.audit();
  }

  #wanted(): Map<string, Uint8Array<ArrayBuffer>> {
    const wanted = new Map<string, Uint8Array<ArrayBuffer>>();
    const add = (range: Cidr, byRules: boolean) => {
      const key = encodeRange(firstAddress(range), range.prefix).toHex();
      // Of two that refuse one range the one without exceptions.
      if (!byRules || !wanted.has(key)) wanted.set(key, encodeRefusal({ byRules }));
    };
    if (this.#isFull()) {
      for (const range of [...LINK_LOCAL.ranges, ...this.#inside]) add(range, true);
      return wanted;
    }
    for (const { ranges, isWide } of [...this.#refusals.values()].flat()) {
      for (const range of ranges) add(range, isWide);
    }
    return wanted;
  }

  #isFull(): boolean {
    const all = [...this.#refusals.values()].flat();
    return all.reduce((sum, { ranges }) => sum + ranges.length, 0) > MOST_RANGES;
  }

  #log(): void {
    const told = new Set<string>();
    for (const { where, message, isUsual } of fairly([...this.#refusals.values()].flat())) {
      if (message === undefined || told.size >= MOST_LOGGED) continue;
      told.add(where);
      if (this.#told.has(where)) continue;
      if (isUsual) log.info("{where}: {message}", { where, message });
      else log.error("{where}: {message}", { where, message });
    }
    this.#told = told;
  }
}

/** The registry names no pod's link-local address: whoever is on the same link may be a peer. */
const LINK_LOCAL: Refusal = {
  where: "link-local addresses",
  message: undefined,
  ranges: [parseCidr("fe80::/10")].filter((range) => range !== undefined),
  isWide: true,
};

/** Those of an earlier agent stay until everything is known, and must leave room. */
const MOST_RANGES = CAPACITY.refused_ranges / 2 - 1_024;

const MOST_LOGGED = 100;
