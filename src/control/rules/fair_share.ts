/**
 * The most that each may have so that all together find room (max-min fairness): whoever wants less
 * than that has all of it, and only those that want more are cut. Infinite while there is room for
 * everybody.
 */
export function fairShare(wanted: Iterable<number>, capacity: number): number {
  const sorted = [...wanted].sort((a, b) => a - b);
  let left = capacity;
  for (const [index, want] of sorted.entries()) {
    const share = Math.floor(left / (sorted.length - index));
    if (want > share) return share;
    left -= want;
  }
  return Infinity;
}
