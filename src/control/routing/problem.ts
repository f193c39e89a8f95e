/** Something that keeps connections from being encrypted, so that they are refused until it is gone. */
export interface RoutingProblem {
  /** What it is about: a Service, a node's registry, a map. */
  readonly where: string;
  /** What is wrong, why, and what to do. */
  readonly message: string;
  /** Where connections are refused meanwhile: addresses, or ranges like 10.0.0.0/8. */
  readonly ranges: readonly string[];
}

/** What an audit has found different in the kernel from what was written there, and has written again. */
export type Repairs = Partial<Record<RepairKind, number>>;

export type RepairKind =
  | "peer"
  | "identity"
  | "frontend"
  | "backend"
  | "egress_rule"
  | "node_address"
  | "refused_range";
