import type { Pod } from "../cluster/objects.ts";
import type { NodeFacts } from "../cluster/nodes.ts";
import { isInOne, PodCidrUse, podRange } from "../pod_ranges.ts";
import { RangeClaims } from "./range_claims.ts";

/** What an address that a pod claims is held against. */
export interface Surroundings {
  /** The claim's node; undefined while it has not been seen. */
  readonly node: NodeFacts | undefined;
  /** Who else says that the address is theirs. */
  readonly ownersOf: (address: string) => readonly Owner[];
  /**
   * Whether pods have addresses of their nodes' podCIDRs in this cluster: some IPAMs leave these
   * unused.
   */
  readonly usesRanges: boolean;
  /** Other Nodes whose podCIDRs have the address, too, whichever of the Nodes was first. */
  readonly rivalsOf: (address: string) => readonly string[];
}

/** A pod or a node that has an address. */
export interface Owner {
  /** For people. */
  readonly name: string;
  /** The node that says so, or whose kubelet does. */
  readonly node: string;
  /** It is that node's own address. */
  readonly isNode?: boolean;
}

/**
 * A pod whose address nobody else may have: one that runs or is about to, in a network of its own.
 */
export interface AddressHolder {
  readonly uid: string;
  /** `namespace/name`. */
  readonly name: string;
  readonly node: string;
  /** Canonical text. */
  readonly addresses: readonly string[];
}

/**
 * Undefined for a pod that holds no address. One that is being deleted may have lost it: its object
 * outlasts its sandbox, on a dead node for ever.
 */
export function holderOf(pod: Pod): AddressHolder | undefined {
  const ended = pod.phase === "Succeeded" || pod.phase === "Failed" || pod.deleting;
  if (ended || pod.hostNetwork || pod.addresses.length === 0) return undefined;
  const { uid, namespace, name, nodeName, addresses } = pod;
  return { uid, name: `${namespace}/${name}`, node: nodeName, addresses };
}

/**
 * An AddressBook knows which pod and which node has which address, as the API server's objects say.
 * A kubelet writes its pods' addresses itself: one that is stolen must not be given other nodes'
 * and other pods'.
 */
export class AddressBook {
  #holders: ReadonlyMap<string, AddressHolder> | undefined;
  #nodes: ReadonlyMap<string, NodeFacts> | undefined;
  #index: Index | undefined;
  readonly #claims = new KnownClaims();

  /**
   * Whether all pods and nodes have been listed: before that nothing can be said of anybody's
   * address.
   */
  get isComplete(): boolean {
    return this.#holders !== undefined && this.#nodes !== undefined;
  }

  pods(holders: ReadonlyMap<string, AddressHolder>): void {
    this.#holders = holders;
    this.#index = undefined;
  }

  nodes(nodes: ReadonlyMap<string, NodeFacts>): void {
    this.#nodes = nodes;
    this.#index = undefined;
  }

  /** For a claim of the pod `uid` on the node of that name. */
  around(claim: { readonly node: string; readonly uid: string }): Surroundings {
    const index = this.#index ??= indexOf(
      this.#holders ?? new Map(),
      this.#nodes ?? new Map(),
      this.#claims,
    );
    return {
      node: index.nodes.get(claim.node),
      ownersOf: (address) => [
        ...index.nodesOf.get(address) ?? [],
        ...index.holdersOf.get(address)?.filter(({ uid }) => uid !== claim.uid) ?? [],
      ],
      usesRanges: index.use.isUsual(claim.node),
      rivalsOf: (address) => index.claims.rivalsOf(claim.node, address),
    };
  }
}

interface Index {
  /** By name. */
  readonly nodes: ReadonlyMap<string, NodeFacts>;
  readonly nodesOf: ReadonlyMap<string, readonly Owner[]>;
  readonly holdersOf: ReadonlyMap<string, readonly AddressHolder[]>;
  readonly use: PodCidrUse;
  readonly claims: RangeClaims;
}

/**
 * Remembers what was found of the same podCIDRs: thousands of kubelets write their Nodes all the
 * time, and change none.
 */
class KnownClaims {
  #text = "";
  #claims = new RangeClaims([]);

  of(nodes: ReadonlyMap<string, NodeFacts>): RangeClaims {
    const text = [...nodes.values()].map(({ name, podCidrs }) => `${name} ${podCidrs}`).join();
    if (text !== this.#text) this.#claims = new RangeClaims(nodes.values());
    this.#text = text;
    return this.#claims;
  }
}

function indexOf(
  holders: ReadonlyMap<string, AddressHolder>,
  nodes: ReadonlyMap<string, NodeFacts>,
  known: KnownClaims,
): Index {
  const byName = new Map([...nodes.values()].map((node) => [node.name, node]));
  const nodesOf = new Map<string, Owner[]>();
  for (const { name, addresses } of byName.values()) {
    const owner = { name: `node ${name}`, node: name, isNode: true };
    for (const address of addresses) nodesOf.set(address, [...nodesOf.get(address) ?? [], owner]);
  }
  const ranges = new Map([...byName.values()].map(({ name, podCidrs }) => [
    name,
    podCidrs.flatMap((cidr) => podRange(cidr) ?? []),
  ]));
  const holdersOf = new Map<string, AddressHolder[]>();
  const use = new PodCidrUse();
  for (const holder of holders.values()) {
    const node = byName.get(holder.node);
    const own = ranges.get(holder.node) ?? [];
    for (const address of holder.addresses) {
      const others = holdersOf.get(address);
      if (others === undefined) holdersOf.set(address, [holder]);
      else others.push(holder);
      if (node === undefined || node.podCidrs.length === 0) continue;
      use.note(holder.node, isInOne(own, address));
    }
  }
  return { nodes: byName, nodesOf, holdersOf, use, claims: known.of(nodes) };
}
