/** A number from 0 up to, and without, `below`. */
export type Random = (below: number) => number;

/** mulberry32: the same numbers in every run. */
export function generator(seed: number): Random {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor(((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32 * below);
  };
}

/**
 * Changes a byte of the first `length`, drops or doubles it, or cuts the end off. Returns the new
 * length.
 */
export function mutate(bytes: Uint8Array, length: number, random: Random): number {
  if (length === 0) return 0;
  const at = random(length);
  switch (random(4)) {
    case 0:
      bytes[at] = random(256);
      return length;
    case 1:
      bytes.copyWithin(at, at + 1, length);
      return length - 1;
    case 2:
      bytes.copyWithin(at + 1, at, length);
      return length + 1;
    default:
      return at;
  }
}
