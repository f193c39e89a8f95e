/** Where connections are refused because what is known does not tell whether a peer is there. */
import { formatAddress, parseAddress } from "../../addresses.ts";
import { type Cidr, firstAddress, toBigInt } from "../../cidr.ts";

export interface Refusal {
  /** What is not known whole: a Service, a node's registry. */
  readonly where: string;
  /** Why, and what to do; undefined for what is never known. */
  readonly message: string | undefined;
  readonly ranges: readonly Cidr[];
  /**
   * Whether the ranges hold more than what is meant: then the API server and what `--egress-allow` names are
   * connected to all the same.
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

/** Ranges of one size that hold all the addresses, as small as is possible with so many of each family. */
export function coveringRanges(addresses: Iterable<string>, mostOfAFamily: number): Cidr[] {
  const numbers = { 4: new Set<bigint>(), 6: new Set<bigint>() };
  for (const address of addresses) {
    const { family, first } = rangeOf(address);
    numbers[family].add(first);
  }
  return ([4, 6] as const).flatMap((family) => {
    // Between no bits, which always fit, and all of them.
    let [fits, least, most] = [new Set([0n]), 0, 128];
    let prefix = least;
    while (least <= most) {
      const middle = (least + most) >> 1;
      const starts = startsOf(numbers[family], middle);
      if (starts.size <= mostOfAFamily) [fits, prefix, least] = [starts, middle, middle + 1];
      else most = middle - 1;
    }
    return [...fits].sort((a, b) => a < b ? -1 : 1).map((first) => ({ family, first, prefix }));
  });
}

function startsOf(numbers: Iterable<bigint>, prefix: number): Set<bigint> {
  const host = BigInt(128 - prefix);
  const starts = new Set<bigint>();
  for (const number of numbers) starts.add(number >> host << host);
  return starts;
}
