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
