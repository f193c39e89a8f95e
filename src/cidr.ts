/** Address ranges, as `10.0.0.0/8` or `fd00::/8`. */
import { addressFamily, parseAddress } from "./addresses.ts";

export interface Cidr {
  readonly family: 4 | 6;
  /** The first address as a number of 128 bits, IPv4 as `::ffff:a.b.c.d`. */
  readonly first: bigint;
  /** How many bits of the 128 count, for IPv4 too. */
  readonly prefix: number;
}

/** The range in `text`, its host bits ignored, or undefined when it is none. */
export function parseCidr(text: string): Cidr | undefined {
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

/** 16 bytes as a number. */
export function toBigInt(bytes: Uint8Array): bigint {
  return BigInt(`0x${bytes.toHex()}`);
}

/** The first address as 16 bytes. */
export function firstAddress({ first }: Cidr): Uint8Array {
  return Uint8Array.fromHex(first.toString(16).padStart(32, "0"));
}

/** Whether every address of `inner` is in `outer`. */
export function covers(outer: Cidr, inner: Cidr): boolean {
  const host = BigInt(128 - outer.prefix);
  return outer.family === inner.family && outer.prefix <= inner.prefix &&
    outer.first >> host === inner.first >> host;
}
