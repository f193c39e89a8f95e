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
  // The network's own address is set apart, and the first, the bridge's and the pods' gateway; and IPv4's broadcast address:
  // but for ranges of one or two (RFC 3021, RFC 6164).
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

/** Whether `address` is one that a node's IPAM gives to pods from `cidr`. A text that is no CIDR contains nothing. */
export function isPodAddressOf(cidr: string, address: string): boolean {
  const range = podRange(cidr);
  return range !== undefined && isInOne([range], address);
}

/**
 * Whether pods have addresses of their nodes' podCIDRs in this cluster: some IPAMs (Calico's, Cilium's) leave these
 * unused. Most nodes decide, and none has a voice in what is to limit it.
 *
 * @param fits by node: whether all of its pods have. Only of nodes that have pods and podCIDRs.
 */
export function usesPodCidrs(fits: ReadonlyMap<string, boolean>, except: string): boolean {
  let [inside, outside] = [0, 0];
  for (const [node, isInside] of fits) {
    if (node === except) continue;
    if (isInside) inside++;
    else outside++;
  }
  return inside > outside;
}
