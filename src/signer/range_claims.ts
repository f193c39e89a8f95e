import { addressFamily, parseAddress } from "../addresses.ts";
import { parseCidr, toBigInt } from "../cidr.ts";
import type { NodeFacts } from "../cluster/nodes.ts";
import { compare } from "../order.ts";

/**
 * Which Nodes claim which addresses by their podCIDRs. The control plane gives each Node ranges of
 * its own, but a kubelet whose Node object is gone makes it anew and writes there what it likes,
 * another Node's range too. Which of two was first does not tell who is honest: Nodes that are made
 * anew get other ages.
 *
 * The work is done once, when the Nodes change, in the order of the ranges: it grows with their
 * number, not with its square.
 */
export class RangeClaims {
  /** By family: where the claimants change, ascending, and who they are from there on. */
  readonly #stretches: Record<4 | 6, Stretch[]>;
  /** Ranges that hold too many others', by node. */
  readonly #wide: ReadonlyMap<string, readonly Claim[]>;

  constructor(nodes: Iterable<Pick<NodeFacts, "name" | "podCidrs">>) {
    const claims = [...nodes].flatMap(claimsOf).sort(inOrder);
    const [v4, v6] = ([4, 6] as const).map((wanted) =>
      judged(claims.filter(({ family }) => family === wanted))
    ) as [Judged, Judged];
    this.#stretches = { 4: v4.stretches, 6: v6.stretches };
    this.#wide = Map.groupBy([...v4.wide, ...v6.wide], ({ node }) => node);
  }

  /**
   * The names of other Nodes because of which `node` may not speak for the address; not all of
   * them, if there are many.
   */
  rivalsOf(node: string, address: string): readonly string[] {
    const bytes = parseAddress(address);
    const [family, value] = [addressFamily(bytes), toBigInt(bytes)];
    const wide = this.#wide.get(node)?.find((claim) =>
      claim.family === family && claim.first <= value && value <= claim.last
    );
    if (wide !== undefined) return wide.holds;
    const stretches = this.#stretches[family];
    const stretch = stretches[countWhile(stretches, ({ first }) => first <= value) - 1];
    return stretch?.claimants.filter((claimant) => claimant !== node) ?? [];
  }
}

/** One range of one Node. */
interface Claim {
  readonly node: string;
  readonly family: 4 | 6;
  /** As numbers of 128 bits. */
  readonly first: bigint;
  readonly last: bigint;
  /** Nodes with ranges in this one, some of them. */
  holds: readonly string[];
}

/** Addresses with the same claimants, up to the next stretch. */
interface Stretch {
  readonly first: bigint;
  /** {@link MOST_NAMED} of them at most. */
  readonly claimants: readonly string[];
}

interface Judged {
  readonly stretches: Stretch[];
  readonly wide: readonly Claim[];
}

function claimsOf({ name, podCidrs }: Pick<NodeFacts, "name" | "podCidrs">): Claim[] {
  return podCidrs.map(parseCidr).filter((cidr) => cidr !== undefined).map(
    ({ family, first, prefix }) => ({
      node: name,
      family,
      first,
      last: first + (1n << BigInt(128 - prefix)) - 1n,
      holds: [],
    }),
  );
}

/** By their first address, the wider one first. */
function inOrder(a: Claim, b: Claim): number {
  return compare(a.first, b.first) || compare(b.last, a.last);
}

/** @param claims of one family, in order. */
function judged(claims: readonly Claim[]): Judged {
  const wide = claims.filter((claim) => {
    // What a range holds stands right behind it: of two CIDRs one holds the other, or they have
    // nothing in common.
    const from = countWhile(claims, (other) => inOrder(other, claim) <= 0);
    const to = countWhile(claims, ({ first }) => first <= claim.last);
    if (to - from <= MOST_HELD) return false;
    claim.holds = claims.slice(from, from + MOST_NAMED).map(({ node }) => node);
    return true;
  });
  const isWide = new Set(wide);
  return { stretches: stretchesOf(claims.filter((claim) => !isWide.has(claim))), wide };
}

function stretchesOf(claims: readonly Claim[]): Stretch[] {
  const ends = claims
    .flatMap((claim) => [
      { at: claim.first, claim, isBegin: true },
      { at: claim.last + 1n, claim, isBegin: false },
    ])
    .sort((a, b) => compare(a.at, b.at));
  const stretches: Stretch[] = [];
  const open = new Set<Claim>();
  for (const [index, { at, claim, isBegin }] of ends.entries()) {
    if (isBegin) open.add(claim);
    else open.delete(claim);
    if (ends[index + 1]?.at === at) continue;
    const claimants: string[] = [];
    for (const { node } of open) {
      if (claimants.push(node) === MOST_NAMED) break;
    }
    stretches.push({ first: at, claimants });
  }
  return stretches;
}

/** How many items, of which the first ones fulfil the condition and the others do not. */
function countWhile<T>(items: readonly T[], isSo: (item: T) => boolean): number {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (isSo(items[middle] as T)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Two are enough: one of them is another. */
const MOST_NAMED = 2;

/**
 * A range that holds more than so many others' is its Node's fault, which gets nothing of it, and
 * takes nothing from these: else one stolen kubelet could claim all addresses, and keep a whole
 * cluster from getting certificates. So many thieves at once could share the range of one Node, and
 * pass it for such a one.
 */
const MOST_HELD = 3;
