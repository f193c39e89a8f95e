/**
 * IP addresses in the one form that everything here compares: 16 bytes in network byte order (IPv4
 * as `::ffff:a.b.c.d`, as the eBPF maps and the wire hold them), or their canonical text.
 */
import { quoted } from "./names.ts";

/**
 * Reads an IPv4 or IPv6 address into 16 bytes, network byte order, IPv4 as `::ffff:a.b.c.d`.
 * Strict: four decimal parts without leading zeros (RFC 6943 3.1.1: others read them as octal), no
 * IPv6 zone, no brackets, no blanks.
 *
 * @throws {TypeError} naming the (bounded) text that is no address.
 */
export function parseAddress(text: string): Uint8Array {
  // RFC 4291 2.2's longest form, all groups and a dotted quad, has 45 characters.
  const bytes = text.length > 45
    ? undefined
    : text.includes(":")
    ? parseIPv6(text)
    : parseIPv4(text);
  if (bytes === undefined) throw new TypeError(`Cannot read ${quoted(text)} as an IP address`);
  return bytes;
}

/**
 * The canonical text of an address of 4 or 16 bytes in network byte order: IPv4 and
 * `::ffff:a.b.c.d` as dotted quad, IPv6 as in RFC 5952 (lower case, the first longest run of two or
 * more zero groups as `::`).
 *
 * @throws {RangeError} when there are neither 4 nor 16 bytes.
 */
export function formatAddress(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  if (bytes.length !== 16) {
    throw new RangeError(`Cannot format ${bytes.length} bytes as an IP address: need 4 or 16`);
  }
  if (isMapped(bytes)) return bytes.subarray(12).join(".");
  const view = new DataView(bytes.buffer, bytes.byteOffset, 16);
  const groups = Array.from({ length: 8 }, (_, i) => view.getUint16(i * 2));
  const { start, length } = longestZeroRun(groups);
  const hex = groups.map((group) => group.toString(16));
  if (length < 2) return hex.join(":");
  return `${hex.slice(0, start).join(":")}::${hex.slice(start + length).join(":")}`;
}

/** The canonical text of the address in `text`, or undefined when it is none. */
export function canonicalAddress(text: string): string | undefined {
  try {
    return formatAddress(parseAddress(text));
  } catch {
    return undefined;
  }
}

/** 4 for IPv4 (4 bytes, or 16 in the mapped form), else 6. */
export function addressFamily(bytes: Uint8Array): 4 | 6 {
  return bytes.length === 4 || isMapped(bytes) ? 4 : 6;
}

/** Why an address can be no pod's address in a cluster; see `specialAddress`. */
export type SpecialAddress =
  | "unspecified"
  | "loopback"
  | "link-local"
  | "multicast"
  | "reserved";

/**
 * What kind of address that no pod can have on a cluster network the 16 bytes are, by RFC 6890's
 * registries, or undefined for an ordinary one. Such an address in the registry would make an agent
 * redirect a pod's own loopback or a node-local service.
 */
export function specialAddress(bytes: Uint8Array): SpecialAddress | undefined {
  if (addressFamily(bytes) === 4) {
    const [a = 0, b = 0] = bytes.subarray(-4);
    if (a === 0) return "unspecified";
    if (a === 127) return "loopback";
    if (a === 169 && b === 254) return "link-local";
    if (a >= 224 && a < 240) return "multicast";
    if (a >= 240) return "reserved";
    return undefined;
  }
  const [a = 0, b = 0] = bytes;
  if (bytes.subarray(0, 15).every((byte) => byte === 0)) {
    if (bytes[15] === 0) return "unspecified";
    if (bytes[15] === 1) return "loopback";
  }
  if (bytes.subarray(0, 12).every((byte) => byte === 0)) return "reserved"; // ::a.b.c.d, RFC 4291 2.5.5.1
  if (a === 0xfe && (b & 0xc0) === 0x80) return "link-local";
  if (a === 0xff) return "multicast";
  return undefined;
}

function parseIPv4(text: string): Uint8Array | undefined {
  const quad = quadOf(text);
  if (quad === undefined) return undefined;
  const bytes = new Uint8Array(16);
  bytes.set([0xff, 0xff, ...quad], 10);
  return bytes;
}

function quadOf(text: string): number[] | undefined {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9][0-9]{0,2})$/.test(part))) return;
  const quad = parts.map(Number);
  return quad.every((byte) => byte <= 255) ? quad : undefined;
}

function parseIPv6(text: string): Uint8Array | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = groupsOf(halves[0] ?? "", halves.length === 1);
  const tail = halves.length === 2 ? groupsOf(halves[1] ?? "", true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  // "::" stands for at least one group (RFC 4291 2.2); without it all eight must be there.
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const groups = [...head, ...new Array<number>(missing).fill(0), ...tail];
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
}

/**
 * The 16-bit groups of one side of `::`; a dotted quad may stand at the very end of the address
 * only.
 */
function groupsOf(text: string, atEnd: boolean): number[] | undefined {
  if (text === "") return [];
  const groups: number[] = [];
  const parts = text.split(":");
  for (const [i, part] of parts.entries()) {
    if (/^[0-9a-fA-F]{1,4}$/.test(part)) {
      groups.push(parseInt(part, 16));
      continue;
    }
    const quad = atEnd && i === parts.length - 1 ? quadOf(part) : undefined;
    if (quad === undefined) return undefined;
    const [a = 0, b = 0, c = 0, d = 0] = quad;
    groups.push(a << 8 | b, c << 8 | d);
  }
  return groups;
}

function isMapped(bytes: Uint8Array): boolean {
  return bytes.length === 16 && bytes[10] === 0xff && bytes[11] === 0xff &&
    bytes.subarray(0, 10).every((byte) => byte === 0);
}

function longestZeroRun(groups: number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  let start = 0;
  for (const [i, group] of groups.entries()) {
    if (group !== 0) start = i + 1;
    else if (i + 1 - start > best.length) best = { start, length: i + 1 - start };
  }
  return best;
}
