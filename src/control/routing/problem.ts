import { inTurns } from "../../in_turns.ts";
import { namespaceOf } from "../../names.ts";

/**
 * Something that keeps connections from being encrypted, so that they are refused until it is gone.
 */
export interface RoutingProblem {
  /** What it is about: a Service, a node's registry, a map. */
  readonly where: string;
  /** What is wrong, why, and what to do. */
  readonly message: string;
  /** Where connections are refused meanwhile: addresses, or ranges like 10.0.0.0/8. */
  readonly ranges: readonly string[];
}

/**
 * What an audit has found different in the kernel from what was written there, and has written
 * again.
 */
export type Repairs = Partial<Record<RepairKind, number>>;

export type RepairKind =
  | "peer"
  | "identity"
  | "slice"
  | "frontend"
  | "backend"
  | "egress_rule"
  | "node_address"
  | "refused_range";

/**
 * The first one of each namespace, then the second: where only some are told, a tenant's thousand
 * hide nobody else's.
 */
export function fairly<T extends { readonly where: string }>(problems: readonly T[]): T[] {
  return inTurns(problems, ({ where }) => namespaceOf(where));
}

/** The first ones of many, and how many there are beside them. */
export function listed(problems: readonly RoutingProblem[]): RoutingProblem[] {
  if (problems.length <= MOST_PROBLEMS) return [...problems];
  const message = `${problems.length - MOST_PROBLEMS} further problems are not listed`;
  return [...fairly(problems).slice(0, MOST_PROBLEMS), { where: "routing", message, ranges: [] }];
}

const MOST_PROBLEMS = 200;
