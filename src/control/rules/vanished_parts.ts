import type { ClusterProblem } from "../../cluster/cluster.ts";
import type { Peer, RegistryPart } from "../../cluster/registry.ts";
import { REGISTRY_LIMITS } from "./registry_bounds.ts";

/**
 * Keeps what the registry said for a while when a part of it goes whole. An agent takes its pods
 * out of its part, and leaves that empty, also when it goes for good; a part that goes with pods in
 * it was deleted with its Node object, or by somebody: its agent, which may be dead or frozen now,
 * will write it again, and its pods must not be reached in clear until then.
 */
export class VanishedParts {
  readonly #mostOfNode: number;
  #last: ReadonlyMap<string, RegistryPart> = new Map();
  readonly #kept = new Map<string, Kept>();
  /** When the next part is to be forgotten; undefined: none is kept. */
  next: number | undefined;

  /**
   * @param mostOfNode how many addresses are kept of one node: whoever has its token may write
   * parts and delete them.
   */
  constructor(mostOfNode = 2 * REGISTRY_LIMITS.ofNode) {
    this.#mostOfNode = mostOfNode;
  }

  /** What an earlier agent knew: what the registry has lost since has gone just now. */
  remember(parts: readonly RegistryPart[]): void {
    this.#last = new Map(parts.map((part) => [part.slice, part]));
  }

  /**
   * The parts that there are, and those that were there until a while ago. Who has got another's
   * address since is who the registry says now.
   *
   * @param now by the monotonic clock, in milliseconds.
   * @param keep for how many milliseconds a node's part is kept.
   */
  apply(
    parts: readonly RegistryPart[],
    now: number,
    keep: (node: string) => number,
  ): readonly RegistryPart[] {
    const present = new Map(parts.map((part) => [part.slice, part]));
    for (const [slice, part] of this.#last) {
      if (present.has(slice) || part.peers.length === 0) continue;
      // What an earlier agent has left has its bound in the kernel's map.
      const isBeyond = this.#keptOf(part.node) + part.peers.length > this.#mostOfNode;
      if (isBeyond && part.wasBelieved !== true) continue;
      this.#kept.set(slice, { part, since: now, shown: part });
    }
    this.next = undefined;
    for (const [slice, { part, since }] of this.#kept) {
      const until = since + keep(part.node);
      if (present.has(slice) || until <= now) this.#kept.delete(slice);
      else this.next = Math.min(this.next ?? Infinity, until);
    }
    this.#last = present;
    return this.#kept.size === 0 ? parts : [...parts, ...this.#notElsewhere(parts)];
  }

  #keptOf(node: string): number {
    return [...this.#kept.values()].filter(({ part }) => part.node === node)
      .reduce((sum, { part }) => sum + part.peers.length, 0);
  }

  /** For people: whose parts are kept. */
  problems(): ClusterProblem[] {
    const kept = [...this.#kept.values()].filter(({ shown }) => shown.peers.length > 0);
    return kept.map(({ part: { slice, node }, shown: { peers } }) => ({
      file: slice === "" ? "registry" : slice,
      message: slice === ""
        ? `${peers.length} addresses have gone from it while no agent ran here, nobody knows of which node: they are ` +
          "taken for peers' for a while"
        : `it has gone with ${peers.length} addresses in it, of which ${node}'s agent has not said that nobody is ` +
          "there: they are taken for peers' until that agent writes it again; does it run?",
    }));
  }

  /**
   * The same objects as before where nothing has changed: what follows from a part is worked out
   * once.
   */
  #notElsewhere(parts: readonly RegistryPart[]): RegistryPart[] {
    const named = new Set(parts.flatMap(({ peers }) => peers.map(({ address }) => address)));
    return [...this.#kept.values()].map((kept) => {
      const peers = kept.part.peers.filter(({ address }) => !named.has(address));
      if (!isSame(peers, kept.shown.peers)) kept.shown = { ...kept.part, peers };
      return kept.shown;
    });
  }
}

interface Kept {
  readonly part: RegistryPart;
  readonly since: number;
  /** As far as nobody else has its addresses. */
  shown: RegistryPart;
}

function isSame(a: readonly Peer[], b: readonly Peer[]): boolean {
  return a.length === b.length && a.every((peer, index) => peer === b[index]);
}

/**
 * How long a node's part is kept: long enough for an agent to be started again, and to write it.
 * With a Node that is gone its pods go, whose addresses others may get. In a directory, which has
 * no Nodes, nobody empties a file before it is removed.
 *
 * @param nodes the Nodes that there are.
 */
export function keptMilliseconds(
  node: string,
  nodes: Pick<ReadonlyMap<string, unknown>, "has" | "size">,
): number {
  if (nodes.has(node)) return KEPT_MILLISECONDS;
  return nodes.size > 0 ? KEPT_WITHOUT_NODE_MILLISECONDS : KEPT_OF_FILE_MILLISECONDS;
}

const KEPT_MILLISECONDS = 600_000;
const KEPT_WITHOUT_NODE_MILLISECONDS = 60_000;
const KEPT_OF_FILE_MILLISECONDS = 4_000;
