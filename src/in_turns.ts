/**
 * One of each owner's in turn, each owner's in their order: whoever takes only the first so many is
 * fair to all.
 *
 * @example
 * ```ts
 * import { deepStrictEqual } from "node:assert/strict";
 *
 * const turns = inTurns(["a1", "a2", "a3", "b1"], ([owner = ""]) => owner);
 * deepStrictEqual(turns, ["a1", "b1", "a2", "a3"]);
 * ```
 *
 * @param had how many turns an owner has had already.
 */
export function inTurns<T>(
  items: readonly T[],
  ownerOf: (item: T) => string,
  had: (owner: string) => number = () => 0,
): T[] {
  const turns = new Map<string, number>();
  return items.map((item) => {
    const owner = ownerOf(item);
    const turn = turns.get(owner) ?? had(owner);
    turns.set(owner, turn + 1);
    return { item, turn };
  }).sort((a, b) => a.turn - b.turn).map(({ item }) => item);
}
