import type { Peer, RegistryPart } from "../../cluster/registry.ts";
import { fairShare } from "./fair_share.ts";
import { rangeOf, type Refusal } from "./refusal.ts";

/** How many entries of the registry are believed. */
export interface RegistryLimits {
  readonly ofNode: number;
  readonly ofAll: number;
}

/** A node's share is some 2,000 pods with two addresses each; kubelet's own limit is 110 by default. */
export const REGISTRY_LIMITS: RegistryLimits = { ofNode: 4_096, ofAll: 524_288 };

/**
 * Addresses of one node's registry that are refused because they are not believed. A node has some hundreds at most by
 * honest ways. More are not taken together to ranges: whoever has stolen its token would name a few addresses that are
 * far from each other, and cut off all that lies between them.
 */
const MOST_REFUSED = 1_024;

/**
 * The registry as far as it is believed: of a node that has published more than it may, only as much. What is not
 * believed may be pods all the same, so connections there are refused. One node's excess costs no other node anything;
 * every agent draws the line at the same entry.
 */
export class RegistryBounds {
  /** What was made of nodes that have published too much, or what cannot be believed. */
  #known = new Map<string, Judged>();

  constructor(readonly limits: RegistryLimits) {}

  /** The parts that are believed: the same objects as before where nothing has changed. */
  apply(parts: Iterable<RegistryPart>): Map<string, RegistryPart> {
    const nodes = new Map<string, RegistryPart[]>();
    const believed = new Map<string, RegistryPart>();
    for (const part of parts) {
      believed.set(part.slice, part);
      const others = nodes.get(part.node);
      if (others === undefined) nodes.set(part.node, [part]);
      else others.push(part);
    }
    const sizes = new Map([...nodes].map(([node, list]) => [node, sizeOf(list)]));
    const share = this.#share(sizes.values());
    const known = new Map<string, Judged>();
    for (const [node, list] of nodes) {
      const isBeyond = (sizes.get(node) ?? 0) > share;
      if (!isBeyond && list.every(({ refused }) => refused.length === 0)) continue;
      const before = this.#known.get(node);
      const judged = before !== undefined && isSame(before, list, share)
        ? before
        : judge(node, list, share);
      known.set(node, judged);
      for (const part of judged.cut) believed.set(part.slice, part);
    }
    this.#known = known;
    return believed;
  }

  refusals(): Refusal[] {
    return [...this.#known.values()].flatMap(({ refusal }) => refusal ?? []);
  }

  #share(sizes: Iterable<number>): number {
    const { ofNode, ofAll } = this.limits;
    return Math.min(ofNode, fairShare([...sizes].map((size) => Math.min(size, ofNode)), ofAll));
  }
}

interface Judged {
  readonly parts: readonly RegistryPart[];
  readonly share: number;
  /** In the place of those that are not believed whole. */
  readonly cut: readonly RegistryPart[];
  readonly refusal: Refusal | undefined;
}

function judge(node: string, parts: readonly RegistryPart[], share: number): Judged {
  const cut: RegistryPart[] = [];
  const beyond: Peer[] = [];
  let room = share;
  for (const part of [...parts].sort((a, b) => a.slice < b.slice ? -1 : 1)) {
    const { peers } = part;
    if (peers.length > room) {
      cut.push({ ...part, peers: peers.slice(0, room) });
      for (const peer of peers.slice(room)) beyond.push(peer);
    }
    room = Math.max(0, room - peers.length);
  }
  const unbelieved = parts.flatMap(({ refused }) => refused).flatMap(({ addresses }) => addresses);
  const addresses = [...new Set([...beyond.map(({ address }) => address), ...unbelieved])];
  const ranges = addresses.slice(0, MOST_REFUSED).map(rangeOf);
  const unrefused = addresses.length - ranges.length;
  const reasons = [
    ...(beyond.length === 0
      ? []
      : [`it has ${share + beyond.length} entries, ${share} are believed`]),
    ...(unbelieved.length === 0 ? [] : [`${unbelieved.length} addresses stand in bad entries`]),
    ...(unrefused === 0 ? [] : [`${unrefused} of them are too many even to be refused`]),
  ];
  const refusal: Refusal | undefined = ranges.length === 0 ? undefined : {
    where: `registry of ${node}`,
    message: `${reasons.join("; ")}: connections to the others' addresses are refused. Look at ` +
      `the agent of ${node}, and at who may write EndpointSlices in its namespace`,
    ranges,
    isWide: false,
  };
  return { parts, share, cut, refusal };
}

function isSame(judged: Judged, parts: readonly RegistryPart[], share: number): boolean {
  return judged.share === share && judged.parts.length === parts.length &&
    judged.parts.every((part, index) => part === parts[index]);
}

function sizeOf(parts: readonly RegistryPart[]): number {
  return parts.reduce((sum, { peers }) => sum + peers.length, 0);
}
