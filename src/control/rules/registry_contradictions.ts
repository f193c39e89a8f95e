import type { ClusterObjects } from "../../cluster/cluster.ts";
import type { RegistryPart } from "../../cluster/registry.ts";
import { isInOne, PodCidrUse, type PodRange, podRange } from "../../pod_ranges.ts";
import { KnownCidrs, NO_NODE } from "./known_cidrs.ts";

/** Entries of one slice that are not believed, because others' objects contradict them. */
export interface Contradiction {
  /** The slice, `namespace/name`. */
  readonly where: string;
  readonly message: string;
}

/**
 * Which entries of the registry can be true. What a node's agent publishes makes every enrolled pod
 * refuse plain connections there, so whoever has stolen its token could cut off what he likes: an
 * API server, DNS, another node's pods. An entry is held against what only the control plane
 * writes: the addresses of Services, the nodes' podCIDRs where these are in use, and the pods that
 * are known here. Nothing that a tenant or another kubelet writes counts.
 */
export class RegistryContradictions {
  readonly #nodeName: string;
  /** By part as it was published. */
  readonly #judged = new WeakMap<RegistryPart, Judged>();
  /** The ranges of each node's podCIDRs, parsed once. */
  readonly #ranges = new WeakMap<readonly string[], readonly PodRange[]>();
  readonly #cidrs = new KnownCidrs();
  #foreign: ReadonlyMap<string, Foreign> = new Map();
  #contradictions: Contradiction[] = [];
  #doubted = new Map<string, string>();

  /** Whether most nodes' pods had addresses of their nodes' podCIDRs at the last {@link apply}. */
  usesPodCidrs = false;

  constructor(nodeName: string) {
    this.#nodeName = nodeName;
  }

  /** What was not believed at the last {@link apply}. */
  list(): readonly Contradiction[] {
    return this.#contradictions;
  }

  /**
   * The addresses that are known to be somebody's whom the registry has nothing to say of: the same
   * object until that changes.
   */
  get foreign(): ReadonlyMap<string, unknown> {
    return this.#foreign;
  }

  /**
   * The addresses of our own part that the other nodes' agents do not believe, and why: their pods
   * connect there in clear.
   */
  doubted(): ReadonlyMap<string, string> {
    return this.#doubted;
  }

  /**
   * The parts without what is contradicted: the same objects as before where nothing has changed.
   */
  apply(
    parts: ReadonlyMap<string, RegistryPart>,
    { nodes, pods, services }: Pick<ClusterObjects, "nodes" | "pods" | "services">,
  ): Map<string, RegistryPart> {
    const foreign = foreignAddresses(pods, services);
    // Of 150,000 entries and 10,000 Services hardly anything changes at a time.
    if (!isSame(foreign, this.#foreign)) this.#foreign = foreign;
    this.#cidrs.update(nodes);
    const use = new PodCidrUse();
    for (const part of parts.values()) {
      const cidrs = this.#cidrs.of(part.node);
      if (part.peers.length + part.refused.length === 0 || cidrs.length === 0) continue;
      use.note(part.node, this.#judge(part, cidrs).outside.length === 0);
    }
    this.usesPodCidrs = use.isUsual();
    this.#contradictions = [];
    this.#doubted = new Map();
    const believed = new Map<string, RegistryPart>();
    for (const [slice, part] of parts) {
      const judged = this.#judge(part, this.#cidrs.of(part.node));
      believed.set(slice, this.#believed(part, judged, use));
    }
    return believed;
  }

  #believed(part: RegistryPart, judged: Judged, use: PodCidrUse): RegistryPart {
    const { foreign, outside } = judged;
    if (foreign.length + outside.length === 0) return part;
    const isHeld = outside.length > 0 && use.isUsual(part.node);
    if (judged.kept?.isHeld !== isHeld) {
      judged.kept = keptOf(part, isHeld ? [...foreign, ...outside] : foreign, isHeld);
    }
    const { without, contradiction, rest } = judged.kept;
    if (part.node === this.#nodeName) {
      for (const { address, why } of without) this.#doubted.set(address, why);
      return part;
    }
    if (contradiction !== undefined) this.#contradictions.push(contradiction);
    return rest;
  }

  #judge(part: RegistryPart, cidrs: readonly string[]): Judged {
    const known = this.#judged.get(part);
    if (known?.cidrs === cidrs && known.against === this.#foreign) return known;
    const ranges = this.#rangesOf(cidrs);
    const named = addressesOf(part);
    const judged: Judged = {
      cidrs,
      against: this.#foreign,
      // Reading 150,000 addresses takes seconds: not again because a Service is new.
      outside: known?.cidrs === cidrs
        ? known.outside
        : cidrs === NO_NODE && part.wasBelieved !== true
        ? named.map((address) => ({ address, why: "may be anybody's: it has no Node object" }))
        : ranges.length === 0
        ? []
        : named.filter((address) => !isInOne(ranges, address)).map((address) => ({
          address,
          why: `is none of its podCIDRs ${cidrs.join(", ").slice(0, 100)}`,
        })),
      foreign: named.flatMap((address) => {
        const whose = this.#foreign.get(address);
        return whose === undefined || whose.node === part.node
          ? []
          : [{ address, why: whyForeign(whose) }];
      }),
      kept: undefined,
    };
    this.#judged.set(part, judged);
    return judged;
  }

  #rangesOf(cidrs: readonly string[]): readonly PodRange[] {
    const ranges = this.#ranges.get(cidrs) ?? cidrs.flatMap((cidr) => podRange(cidr) ?? []);
    this.#ranges.set(cidrs, ranges);
    return ranges;
  }
}

/** All that a part names: what stands in bad entries, too, is refused to everybody otherwise. */
function addressesOf({ peers, refused }: RegistryPart): string[] {
  return [...peers.map(({ address }) => address), ...refused.flatMap(({ addresses }) => addresses)];
}

/** What is left of a part without its entries that are not believed. */
function keptOf(part: RegistryPart, without: readonly Doubtful[], isHeld: boolean): Kept {
  const [first] = without;
  if (first === undefined) return { isHeld, without, contradiction: undefined, rest: part };
  const others = without.length === 1 ? "" : ` (and ${without.length - 1} others)`;
  const message = `node ${part.node} names ${first.address}${others}, which ${first.why}: it is ` +
    "not believed. Look at that node's agent";
  const rest = withoutAddresses(part, new Set(without.map(({ address }) => address)));
  return { isHeld, without, contradiction: { where: part.slice, message }, rest };
}

function withoutAddresses(part: RegistryPart, unbelieved: ReadonlySet<string>): RegistryPart {
  return {
    ...part,
    peers: part.peers.filter(({ address }) => !unbelieved.has(address)),
    refused: part.refused.map((entry) => ({
      ...entry,
      addresses: entry.addresses.filter((address) => !unbelieved.has(address)),
    })),
  };
}

interface Judged {
  /** What it was held against. */
  readonly cidrs: readonly string[];
  readonly against: ReadonlyMap<string, Foreign>;
  /** Beyond its node's podCIDRs. */
  readonly outside: readonly Doubtful[];
  /** Somebody else's. */
  readonly foreign: readonly Doubtful[];
  kept: Kept | undefined;
}

interface Kept {
  /** Whether the node's podCIDRs count. */
  readonly isHeld: boolean;
  readonly without: readonly Doubtful[];
  readonly contradiction: Contradiction | undefined;
  readonly rest: RegistryPart;
}

interface Doubtful {
  readonly address: string;
  readonly why: string;
}

/** Whose an address is. */
interface Foreign {
  readonly kind: "pod" | "Service";
  readonly of: { readonly namespace: string; readonly name: string };
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
    const whose: Foreign = { kind: "pod", of: pod, node: pod.nodeName };
    for (const address of pod.addresses) foreign.set(address, whose);
  }
  for (const service of services.values()) {
    const whose: Foreign = { kind: "Service", of: service, node: "" };
    for (const address of service.clusterIps) foreign.set(address, whose);
  }
  return foreign;
}

function whyForeign({ kind, of: { namespace, name }, node }: Foreign): string {
  return `is that of ${kind} ${namespace}/${name}${node === "" ? "" : ` on node ${node}`}`;
}

function isSame(a: ReadonlyMap<string, Foreign>, b: ReadonlyMap<string, Foreign>): boolean {
  if (a.size !== b.size) return false;
  for (const [address, { node }] of a) if (b.get(address)?.node !== node) return false;
  return true;
}
