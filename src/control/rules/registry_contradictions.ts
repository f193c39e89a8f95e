import type { ClusterObjects } from "../../cluster/cluster.ts";
import type { RegistryPart } from "../../cluster/registry.ts";
import { isPodAddressOf, usesPodCidrs } from "../../pod_ranges.ts";

/** Entries of one slice that are not believed, because others' objects contradict them. */
export interface Contradiction {
  /** The slice, `namespace/name`. */
  readonly where: string;
  readonly message: string;
}

/**
 * Which entries of the registry can be true. What a node's agent publishes makes every enrolled pod refuse plain
 * connections there, so whoever has stolen its token could cut off what he likes: an API server, DNS, another node's
 * pods. An entry is held against what only the control plane writes: the addresses of Services, the nodes' podCIDRs
 * where these are in use, and the pods that are known here. Nothing that a tenant or another kubelet writes counts.
 */
export class RegistryContradictions {
  readonly #nodeName: string;
  /** By part as it was published: what is left of it, and for which evidence that was found. */
  readonly #judged = new WeakMap<RegistryPart, Judged>();
  #foreign: ReadonlyMap<string, Foreign> = new Map();
  #evidence = 0;
  #contradictions: Contradiction[] = [];

  constructor(nodeName: string) {
    this.#nodeName = nodeName;
  }

  /** What was not believed at the last {@link apply}. */
  list(): readonly Contradiction[] {
    return this.#contradictions;
  }

  /** The parts without what is contradicted: the same objects as before where nothing has changed. */
  apply(
    parts: ReadonlyMap<string, RegistryPart>,
    { nodes, pods, services }: Pick<ClusterObjects, "nodes" | "pods" | "services">,
  ): Map<string, RegistryPart> {
    const foreign = foreignAddresses(pods, services);
    if (!isSame(foreign, this.#foreign)) {
      this.#foreign = foreign;
      this.#evidence++;
    }
    const fits = new Map<string, boolean>();
    const outside = new Map<RegistryPart, boolean>();
    for (const part of parts.values()) {
      const cidrs = nodes.get(part.node)?.podCidrs ?? [];
      if (cidrs.length === 0 || part.peers.length === 0) continue;
      const isOutside = this.#judge(part, cidrs).outside.size > 0;
      outside.set(part, isOutside);
      fits.set(part.node, !isOutside && (fits.get(part.node) ?? true));
    }
    this.#contradictions = [];
    const believed = new Map<string, RegistryPart>();
    for (const [slice, part] of parts) {
      const isHeld = (outside.get(part) ?? false) && usesPodCidrs(fits, part.node);
      believed.set(slice, this.#believed(part, nodes.get(part.node)?.podCidrs ?? [], isHeld));
    }
    return believed;
  }

  #believed(part: RegistryPart, cidrs: readonly string[], isHeld: boolean): RegistryPart {
    if (part.node === this.#nodeName) return part; // our own word
    const judged = this.#judge(part, cidrs);
    const without = new Map(judged.foreign);
    if (isHeld) { for (const [address, reason] of judged.outside) without.set(address, reason); }
    if (without.size === 0) return part;
    const [[address, reason] = ["", ""]] = without;
    const others = without.size === 1 ? "" : ` (and ${without.size - 1} others)`;
    this.#contradictions.push({
      where: part.slice,
      message:
        `node ${part.node} names ${address}${others}, which ${reason}: it is not believed. ` +
        "Look at that node's agent",
    });
    const key = [...without.keys()].join();
    if (judged.kept?.key !== key) {
      const peers = part.peers.filter(({ address }) => !without.has(address));
      judged.kept = { key, part: { ...part, peers } };
    }
    return judged.kept.part;
  }

  #judge(part: RegistryPart, cidrs: readonly string[]): Judged {
    const evidence = `${this.#evidence} ${cidrs.join()}`;
    const known = this.#judged.get(part);
    if (known?.evidence === evidence) return known;
    const judged: Judged = {
      evidence,
      outside: new Map(),
      foreign: new Map(),
      kept: known?.kept,
    };
    for (const { address, node } of part.peers) {
      const whose = this.#foreign.get(address);
      if (whose !== undefined && whose.node !== node) judged.foreign.set(address, whose.what);
      if (cidrs.length > 0 && !cidrs.some((cidr) => isPodAddressOf(cidr, address))) {
        judged.outside.set(address, `is none of its podCIDRs ${cidrs.join(", ").slice(0, 100)}`);
      }
    }
    this.#judged.set(part, judged);
    return judged;
  }
}

interface Judged {
  readonly evidence: string;
  /** Address → why: beyond its node's podCIDRs. */
  readonly outside: Map<string, string>;
  /** Address → why: somebody else's. */
  readonly foreign: Map<string, string>;
  kept: { readonly key: string; readonly part: RegistryPart } | undefined;
}

interface Foreign {
  readonly what: string;
  /** Whose registry may name it all the same; empty: nobody's. */
  readonly node: string;
}

function foreignAddresses(
  pods: ClusterObjects["pods"],
  services: ClusterObjects["services"],
): Map<string, Foreign> {
  const foreign = new Map<string, Foreign>();
  for (const pod of pods) {
    // The address of one that ends may be another's before its object is gone.
    if (pod.phase !== "Running" || pod.deleting || pod.hostNetwork) continue;
    const what = `is that of pod ${pod.namespace}/${pod.name} on node ${pod.nodeName}`;
    for (const address of pod.addresses) foreign.set(address, { what, node: pod.nodeName });
  }
  for (const { namespace, name, clusterIps } of services.values()) {
    const what = `is that of Service ${namespace}/${name}`;
    for (const address of clusterIps) foreign.set(address, { what, node: "" });
  }
  return foreign;
}

function isSame(a: ReadonlyMap<string, Foreign>, b: ReadonlyMap<string, Foreign>): boolean {
  if (a.size !== b.size) return false;
  for (const [address, { node }] of a) if (b.get(address)?.node !== node) return false;
  return true;
}
