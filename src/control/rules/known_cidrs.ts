import type { ClusterObjects } from "../../cluster/cluster.ts";

/**
 * The podCIDRs of the nodes. What a node's agent has published may outlive its Node object: it is held against the ranges
 * that the Node had, until another has them.
 */
export class KnownCidrs {
  #nodes: ClusterObjects["nodes"] = new Map();
  /** By node, the last to be seen last. */
  readonly #cidrs = new Map<string, readonly string[]>();

  update(nodes: ClusterObjects["nodes"]): void {
    if (nodes === this.#nodes) return;
    this.#nodes = nodes;
    const present = new Set<string>();
    for (const [node, { podCidrs }] of nodes) {
      this.#cidrs.delete(node);
      this.#cidrs.set(node, podCidrs);
      for (const cidr of podCidrs) present.add(cidr);
    }
    for (const [node, cidrs] of this.#cidrs) {
      if (nodes.has(node)) break;
      const isBeyond = this.#cidrs.size > nodes.size + MOST_GONE;
      if (isBeyond || cidrs.some((cidr) => present.has(cidr))) this.#cidrs.delete(node);
    }
  }

  /** Empty when the node has none; {@link NO_NODE} when nothing is known of it though other Nodes are. */
  of(node: string): readonly string[] {
    return this.#cidrs.get(node) ?? (this.#nodes.size === 0 ? NO_CIDRS : NO_NODE);
  }
}

const NO_CIDRS: readonly string[] = [];
/** For a node of which nothing is known. */
export const NO_NODE: readonly string[] = [];

/** Nodes that are gone and whose ranges are remembered. */
const MOST_GONE = 5_000;
