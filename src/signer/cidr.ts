import { addressFamily, parseAddress } from "../addresses.ts";

/**
 * Whether `address` is one that a node's IPAM gives to pods from `cidr`: inside, and neither the network's
 * own address, nor the first (the bridge's, the pods' gateway), nor an IPv4 network's broadcast address. A
 * text that is no CIDR contains nothing.
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

/** `prefix` counts from the front of the 16 bytes, for IPv4 too. */
function parseCidr(text: string): { family: 4 | 6; first: bigint; prefix: number } | undefined {
  const [address = "", length = "", ...more] = text.slice(0, 64).split("/");
  if (more.length > 0 || !/^(?:0|[1-9][0-9]{0,2})$/.test(length)) return undefined;
  let bytes: Uint8Array;
  try {
    bytes = parseAddress(address);
  } catch {
    return undefined;
  }
  const family = addressFamily(bytes);
  const prefix = Number(length) + (family === 4 ? 96 : 0);
  if (prefix > 128) return undefined;
  const host = BigInt(128 - prefix);
  return { family, first: toBigInt(bytes) >> host << host, prefix };
}

function toBigInt(bytes: Uint8Array): bigint {
  return BigInt(`0x${bytes.toHex()}`);
}
