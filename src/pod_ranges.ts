/** The ranges from which nodes give pods their addresses. */
import { addressFamily, parseAddress } from "./addresses.ts";
import { parseCidr, toBigInt } from "./cidr.ts";

/** A range from which a node's IPAM gives its pods their addresses. */
export interface PodRange {
  readonly family: 4 | 6;
  /** As numbers of 32 bits for IPv4, of 128 for IPv6. */
  readonly first: number | bigint;
  readonly last: number | bigint;
}

/** The addresses of a CIDR that pods may have; undefined for a text that is no CIDR. */
export function podRange(text: string): PodRange | undefined {
  const cidr = parseCidr(text);
  if (cidr === undefined) return undefined;
  const { family } = cidr;
  const size = 1n << BigInt(128 - cidr.prefix);
  // The network's own address is set apart, and the first, the bridge's and the pods' gateway; and
  // IPv4's broadcast address: but for ranges of one or two (RFC 3021, RFC 6164).
  const isTiny = size <= 2n;
  const first = cidr.first + (isTiny ? 0n : 2n);
  const last = cidr.first + size - (isTiny || family === 6 ? 1n : 2n);
  return family === 6 ? { family, first, last } : {
    family,
    first: Number(first & 0xffff_ffffn),
    last: Number(last & 0xffff_ffffn),
  };
}

/** Whether an address lies in one of the ranges. @throws {TypeError} when it is none. */
export function isInOne(ranges: readonly PodRange[], address: string): boolean {
  const bytes = parseAddress(address);
  const family = addressFamily(bytes);
  const value = family === 6
    ? toBigInt(bytes)
    : new DataView(bytes.buffer, bytes.byteOffset).getUint32(12);
  return ranges.some((range) =>
    range.family === family && range.first <= value && value <= range.last
  );
}

/**
 * Whether `address` is one that a node's IPAM gives to pods from `cidr`. A text that is no CIDR
 * contains nothing.
 */
export function isPodAddressOf(cidr: string, address: string): boolean {
  const range = podRange(cidr);
  return range !== undefined && isInOne([range], address);
}

/**
 * Tells whether pods have addresses of their nodes' podCIDRs in this cluster: some IPAMs (Calico's,
 * Cilium's) leave these unused. Most nodes decide, and none has a voice in what is to limit it.
 */
export class PodCidrUse {
  /** By node: whether all of its pods have. */
  readonly #fits = new Map<string, boolean>();
  #inside = 0;

  /**
   * Of a node that has podCIDRs: whether some of its pods have addresses of these, and none has
   * others.
   */
  note(node: string, isInside: boolean): void {
    const before = this.#fits.get(node);
    const now = isInside && (before ?? true);
    this.#fits.set(node, now);
    this.#inside += Number(now) - Number(before ?? false);
  }

  /** @param except the node that is to be limited. */
  isUsual(except?: string): boolean {
    const own = except === undefined ? undefined : this.#fits.get(except);
    const inside = this.#inside - Number(own ?? false);
    const all = this.#fits.size - (own === undefined ? 0 : 1);
    return 2 * inside > all;
  }
}
