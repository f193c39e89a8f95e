/** For {@link Array.sort}: texts by code unit, the same on every node, whatever its locale. */
export function compare<T extends string | bigint>(a: T, b: T): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
