/** Where connections are refused because what is known does not tell whether a peer is there. */
import { formatAddress, parseAddress } from "../../addresses.ts";
import { compare } from "../../order.ts";
import { type Cidr, firstAddress, toBigInt } from "../../cidr.ts";

export interface Refusal {
  /** What is not known whole: a Service, a node's registry. */
  readonly where: string;
  /** Why, and what to do; undefined for what is never known. */
  readonly message: string | undefined;
  readonly ranges: readonly Cidr[];
  /**
   * Whether the ranges hold more than what is meant: then the API server and what `--egress-allow`
   * names are connected to all the same.
   */
  readonly isWide: boolean;
  /** It is so at each first start, and over by itself: nobody need be alarmed. */
  readonly isUsual?: boolean;
}

export function isSameRefusal(a: Refusal, b: Refusal): boolean {
  return a.message === b.message && a.ranges.length === b.ranges.length &&
    a.ranges.every(({ first, prefix }, index) =>
      first === b.ranges[index]?.first && prefix === b.ranges[index].prefix
    );
}

/** The range that holds just this address. */
export function rangeOf(address: string): Cidr {
  const family = address.includes(":") ? 6 : 4;
  return { family, first: toBigInt(parseAddress(address)), prefix: 128 };
}

/** `10.0.0.0/8`, or the address alone. */
export function rangeText(range: Cidr): string {
  const address = formatAddress(firstAddress(range));
  if (range.prefix === 128) return address;
  return `${address}/${range.prefix - (range.family === 4 ? 96 : 0)}`;
}

/**
 * The largest ranges of which the addresses are a quarter at least, in order: whoever names few
 * addresses far from each other gets no more than these, and who names many next to each other
 * needs few ranges. No address is in a range with others that is to be spared.
 *
 * @param spared as numbers, sorted.
 * @param most ends with so many ranges; `covered` says how many addresses they hold.
 */
export function coveringRanges(
  addresses: Iterable<string>,
  spared: readonly bigint[],
  most: number,
): { readonly ranges: Cidr[]; readonly covered: number } {
  const numbers = [...new Set([...addresses].map((address) => rangeOf(address).first))].sort(
    compare,
  );
  const ranges: Cidr[] = [];
  let covered = 0;
  const cover = (from: number, to: number) => {
    const [first, last] = [numbers[from], numbers[to - 1]];
    if (first === undefined || last === undefined || ranges.length >= most) return;
    const hostBits = first === last ? 0 : (first ^ last).toString(2).length;
    const size = 1n << BigInt(hostBits);
    const start = first & -size;
    const isDense = BigInt(to - from) * LEAST_DENSITY >= size;
    if (first === last || (isDense && !isOneWithin(spared, start, start + size))) {
      ranges.push({ family: isMapped(first) ? 4 : 6, first: start, prefix: 128 - hostBits });
      covered += to - from;
      return;
    }
    const half = indexOf(numbers, start + (size >> 1n), from, to);
    cover(from, half);
    cover(half, to);
  };
  cover(0, numbers.length);
  return { ranges, covered };
}

/** Of a range's addresses one in so many is named. */
const LEAST_DENSITY = 4n;

function isOneWithin(sorted: readonly bigint[], first: bigint, end: bigint): boolean {
  const found = sorted[indexOf(sorted, first, 0, sorted.length)];
  return found !== undefined && found < end;
}

/** Where in a sorted list the first is that is not less. */
function indexOf(sorted: readonly bigint[], least: bigint, from: number, to: number): number {
  let [low, high] = [from, to];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] ?? 0n) < least) low = middle + 1;
    else high = middle;
  }
  return low;
}

function isMapped(number: bigint): boolean {
  return number >> 32n === 0xffffn;
}
