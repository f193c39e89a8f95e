import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { FairQueue } from "./fair_queue.ts";

function all<T>(queue: FairQueue<T>): T[] {
  const items: T[] = [];
  for (let item = queue.take(); item !== undefined; item = queue.take()) items.push(item);
  return items;
}

Deno.test("what goes in comes out in order", () => {
  const queue = new FairQueue<number>(10);
  for (const [owner, item] of [["a", 1], ["b", 2], ["a", 3]] as const) queue.add(owner, item);
  strictEqual(queue.first, 1);
  deepStrictEqual([queue.size, all(queue), queue.size, queue.first], [3, [1, 2, 3], 0, undefined]);
});

Deno.test("who has most in a full queue loses the last of it, and who comes late has as much as he", () => {
  const queue = new FairQueue<string>(6);
  for (let index = 0; index < 6; index++) {
    strictEqual(queue.add("evil", `evil ${index}`), undefined);
  }
  strictEqual(queue.add("evil", "evil 6"), "evil");
  deepStrictEqual(["b 0", "b 1", "b 2"].map((item) => queue.add("b", item)), Array(3).fill("evil"));
  strictEqual(queue.hasRoomFor("b"), false, "three each");
  strictEqual(queue.add("b", "b 3"), "b");
  strictEqual(queue.hasRoomFor("c"), true);
  strictEqual(queue.add("c", "c 0"), "evil");
  deepStrictEqual(all(queue), ["evil 0", "evil 1", "b 0", "b 1", "b 2", "c 0"]);
});

Deno.test("one without any place takes nothing", () => {
  const queue = new FairQueue<number>(0);
  deepStrictEqual([queue.add("a", 1), queue.size, queue.take()], ["a", 0, undefined]);
});
