import { formatAddress } from "../../addresses.ts";

/**
 * A batch of a map's entries in words of 32 bits, which an audit reads by the hundred thousand: no
 * allocation but for the text of an address.
 */
export function wordsOf(bytes: Uint8Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
}

/** The canonical text of the `struct address` at a word. */
export function addressAt(words: Uint32Array<ArrayBuffer>, at: number): string {
  const last = words[at + 3] ?? 0;
  if (words[at] !== 0 || words[at + 1] !== 0 || words[at + 2] !== MAPPED) {
    return formatAddress(new Uint8Array(words.buffer, words.byteOffset + 4 * at, 16));
  }
  return `${last & 255}.${(last >> 8) & 255}.${(last >> 16) & 255}.${last >>> 24}`;
}

/** The port, in network byte order, in the first half of a word. */
export function portAt(words: Uint32Array<ArrayBuffer>, at: number): number {
  const word = words[at] ?? 0;
  return (word & 255) << 8 | (word >> 8) & 255;
}

/**
 * The third word of ::ffff:a.b.c.d on a little-endian processor, as all are that the agent runs on.
 */
const MAPPED = 0xffff0000;
