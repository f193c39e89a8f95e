/** The ranges from which nodes give pods their addresses. */
import { addressFamily, parseAddress } from "./addresses.ts";
import { parseCidr, toBigInt } from "./cidr.ts";

/**
 * Whether `address` is one that a node's IPAM gives to pods from `cidr`: inside, and neither the
 * network's own address, nor the first (the bridge's, the pods' gateway), nor an IPv4 network's
 * broadcast address. A text that is no CIDR contains nothing.
 *
 * @throws {TypeError} when `address` is no address.
 */
export function isPodAddressOf(cidr: string, address: string): boolean {
  const network = parseCidr(cidr);
  const bytes = parseAddress(address);
  if (network === undefined || addressFamily(bytes) !== network.family) return false;
  const value = toBigInt(bytes);
  const size = 1n << BigInt(128 - network.prefix);
  const offset = value - network.first;
  if (offset < 0n || offset >= size) return false;
  if (size <= 2n) return true; // RFC 3021, RFC 6164: no address is set apart
  const broadcast = network.family === 4 && offset === size - 1n;
  return offset !== 0n && offset !== 1n && !broadcast;
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
