import type { ClusterObjects } from "../../cluster/cluster.ts";

/**
 * The podCIDRs of the nodes. What a node's agent has published may outlive its Node object: it is
 * held against the ranges that the Node had.
 *
 * It is so when another Node has these ranges now, too. That may be a newcomer, or a stolen kubelet
 * that has made its Node anew with them; nobody can tell from here which. Where two claim an
 * address, both are believed: it stays a peer's, and the handshake shows whose, while an entry that
 * is not believed is one to which pods connect in clear. The price is that what a node that is gone
 * has left in the registry is refused at the newcomer's pods until it is deleted; the signer, which
 * loses nothing by saying no, gives such an address to neither (`signer/range_claims.ts`).
 */
export class KnownCidrs {
  #nodes: ClusterObjects["nodes"] = new Map();
  /** By node, those that are there last. */
  readonly #cidrs = new Map<string, readonly string[]>();

  update(nodes: ClusterObjects["nodes"]): void {
    if (nodes === this.#nodes) return;
    this.#nodes = nodes;
    for (const [node, { podCidrs }] of nodes) {
      this.#cidrs.delete(node);
      this.#cidrs.set(node, podCidrs);
    }
    for (const node of this.#cidrs.keys()) {
      if (this.#cidrs.size <= nodes.size + MOST_GONE) break;
      this.#cidrs.delete(node);
    }
  }

  /**
   * Empty when the node has none; {@link NO_NODE} when nothing is known of it though other Nodes
   * are.
   */
  of(node: string): readonly string[] {
    return this.#cidrs.get(node) ?? (this.#nodes.size === 0 ? NO_CIDRS : NO_NODE);
  }
}

const NO_CIDRS: readonly string[] = [];
/** For a node of which nothing is known. */
export const NO_NODE: readonly string[] = [];

/** Nodes that are gone and whose ranges are remembered. */
const MOST_GONE = 5_000;
