import type { Peer, RegistryPart } from "../../cluster/registry.ts";
import { compare } from "../../order.ts";
import { fairShare } from "./fair_share.ts";
import { coveringRanges, rangeOf, type Refusal } from "./refusal.ts";

/** How many entries of the registry are believed. */
export interface RegistryLimits {
  readonly ofNode: number;
  readonly ofAll: number;
}

/**
 * A node's share is some 2,000 pods with two addresses each; kubelet's own limit is 110 by default.
 */
export const REGISTRY_LIMITS: RegistryLimits = { ofNode: 4_096, ofAll: 524_288 };

/**
 * Refused ranges of one node's registry. An honest node has some hundred addresses that are not
 * believed at most.
 */
const MOST_RANGES = 1_024;

/**
 * The registry as far as it is believed: of a node that has published more than it may, only as
 * much. What is not believed may be pods all the same, so connections there are refused. One node's
 * excess costs no other node anything; every agent draws the line at the same entry.
 */
export class RegistryBounds {
  /** What was made of nodes that have published too much, or what cannot be believed. */
  #known = new Map<string, Judged>();
  #spared: Spared = { foreign: NONE, numbers: [] };

  constructor(readonly limits: RegistryLimits) {}

  /**
   * The parts that are believed: the same objects as before where nothing has changed.
   *
   * @param foreign the addresses of which it is known that they are nobody's in the registry: these
   * are not refused.
   */
  apply(
    parts: Iterable<RegistryPart>,
    foreign: ReadonlyMap<string, unknown> = NONE,
  ): Map<string, RegistryPart> {
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
      const judged = before !== undefined && isSame(before, list, share, foreign)
        ? before
        : judge(node, list, share, this.#sparedOf(foreign));
      known.set(node, judged);
      for (const part of judged.cut) believed.set(part.slice, part);
    }
    this.#known = known;
    return believed;
  }

  refusals(): Refusal[] {
    return [...this.#known.values()].flatMap(({ refusal }) => refusal ?? []);
  }

  #sparedOf(foreign: ReadonlyMap<string, unknown>): Spared {
    if (this.#spared.foreign !== foreign) {
      const numbers = [...foreign.keys()].map((address) => rangeOf(address).first).sort(compare);
      this.#spared = { foreign, numbers };
    }
    return this.#spared;
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
  /** What is not refused though it lies between what is; undefined: nothing does. */
  readonly spared: Spared | undefined;
}

/** Addresses of which it is known whose they are. */
interface Spared {
  readonly foreign: ReadonlyMap<string, unknown>;
  /** The same, sorted. */
  readonly numbers: readonly bigint[];
}

function judge(
  node: string,
  parts: readonly RegistryPart[],
  share: number,
  spared: Spared,
): Judged {
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
  const { ranges, covered } = coveringRanges(addresses, spared.numbers, MOST_RANGES);
  const unrefused = addresses.length - covered;
  const isExact = ranges.reduce((sum, { prefix }) => sum + 2 ** (128 - prefix), 0) === covered;
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
    isWide: !isExact,
  };
  return { parts, share, cut, refusal, spared: isExact ? undefined : spared };
}

function isSame(
  judged: Judged,
  parts: readonly RegistryPart[],
  share: number,
  foreign: ReadonlyMap<string, unknown>,
): boolean {
  return judged.share === share && (judged.spared?.foreign ?? foreign) === foreign &&
    judged.parts.length === parts.length &&
    judged.parts.every((part, index) => part === parts[index]);
}

function sizeOf(parts: readonly RegistryPart[]): number {
  return parts.reduce((sum, { peers }) => sum + peers.length, 0);
}

const NONE: ReadonlyMap<string, unknown> = new Map();
