import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import type { Peer, RegistryPart } from "../../cluster/registry.ts";
import { keptMilliseconds, VanishedParts } from "./vanished_parts.ts";

const part = (slice: string, ...uids: string[]): RegistryPart => ({
  slice,
  node: "n1",
  peers: uids.map((uid): Peer => ({
    uid,
    address: slice === "b" ? "10.0.0.2" : "10.0.0.1",
    identity: "spiffe://cluster.local/ns/default/sa/web",
    node: "n1",
    slice,
    pod: `default/${uid}`,
    ready: true,
  })),
  refused: [],
});

const keep = () => 4_000;

Deno.test("a part that goes whole is kept for a while, and no longer", () => {
  const vanished = new VanishedParts();
  const [a, b] = [part("a", "web"), part("b", "api")];
  deepStrictEqual(vanished.apply([a, b], 0, keep), [a, b]);
  deepStrictEqual(vanished.apply([b], 1_000, keep), [b, a]);
  strictEqual(vanished.next, 5_000);
  deepStrictEqual(vanished.apply([b], 4_999, keep), [b, a], "however often it is asked");
  deepStrictEqual(vanished.apply([b], 5_000, keep), [b]);
  strictEqual(vanished.next, undefined);
});

Deno.test("of several that have gone the first is due next", () => {
  const vanished = new VanishedParts();
  const [a, b] = [part("a", "web"), part("b", "api")];
  vanished.apply([a, b], 0, keep);
  vanished.apply([b], 1_000, keep);
  vanished.apply([], 2_000, keep);
  strictEqual(vanished.next, 5_000);
  deepStrictEqual(vanished.apply([], 5_000, keep), [b]);
  strictEqual(vanished.next, 6_000);
});

Deno.test("a part that is written again is what it says then", () => {
  const vanished = new VanishedParts();
  vanished.apply([part("a", "web")], 0, keep);
  vanished.apply([], 1_000, keep);
  const again = part("a", "other");
  deepStrictEqual(vanished.apply([again], 2_000, keep), [again]);
  strictEqual(vanished.next, undefined);
});

Deno.test("a part that was emptied before is not kept", () => {
  const vanished = new VanishedParts();
  vanished.apply([part("a")], 0, keep);
  deepStrictEqual(vanished.apply([], 1_000, keep), []);
});

Deno.test("what an earlier agent knew, and is not there any more, is kept from now on", () => {
  const vanished = new VanishedParts();
  const [a, b] = [part("a", "web"), part("b", "api")];
  vanished.remember([a, b]);
  deepStrictEqual(vanished.apply([b], 1_000, keep), [b, a]);
  strictEqual(vanished.next, 5_000);
});

Deno.test("what nobody knows the place of is kept as far as nobody else has it", () => {
  const vanished = new VanishedParts();
  const [here, gone] = [part("a", "web"), part("b", "api")];
  vanished.remember([{ ...here, slice: "", node: "", peers: [...here.peers, ...gone.peers] }]);
  const [, kept] = vanished.apply([here], 0, keep);
  deepStrictEqual(kept?.peers, gone.peers);
  match(vanished.problems()[0]?.message ?? "", /^1 addresses have gone from it while no agent ran/);
  vanished.apply([here, { ...gone, slice: "c" }], 1_000, keep);
  deepStrictEqual(vanished.problems(), [], "all is known again");
});

Deno.test("how long depends on the node, as it is by then", () => {
  const vanished = new VanishedParts();
  const a = part("a", "web");
  let milliseconds = 600_000;
  const keepFor = (node: string) => node === "n1" ? milliseconds : 0;
  vanished.apply([a], 0, keepFor);
  deepStrictEqual(vanished.apply([], 1_000, keepFor), [a]);
  strictEqual(vanished.next, 601_000);
  match(vanished.problems()[0]?.message ?? "", /gone with 1 addresses in it, of which n1's agent/);
  milliseconds = 60_000; // its Node has gone, too
  deepStrictEqual(vanished.apply([], 60_999, keepFor), [a]);
  deepStrictEqual(vanished.apply([], 61_000, keepFor), []);
  deepStrictEqual([vanished.next, vanished.problems()], [undefined, []]);
});

Deno.test("who has the address since, the registry says now", () => {
  const vanished = new VanishedParts();
  vanished.apply([part("a", "web")], 0, keep);
  const taken = part("c", "api");
  deepStrictEqual(vanished.apply([taken], 1_000, keep), [taken, { ...part("a"), peers: [] }]);
});

Deno.test("what is kept is the same object as long as it says the same", () => {
  const vanished = new VanishedParts();
  const [a, other] = [part("a", "web", "api"), part("b", "db")];
  vanished.apply([a], 0, keep);
  strictEqual(vanished.apply([], 1, keep)[0], a);
  strictEqual(vanished.apply([other], 2, keep)[1], a);
  const taken = part("c", "cache"); // at the same address
  const [, shown] = vanished.apply([taken], 3, keep);
  deepStrictEqual(shown?.peers, []);
  strictEqual(vanished.apply([taken], 4, keep)[1], shown);
  deepStrictEqual(vanished.apply([other], 5, keep)[1]?.peers, a.peers, "it is nobody else's again");
});

Deno.test("of one node no more is kept than it may have, whoever writes parts and deletes them", () => {
  const vanished = new VanishedParts(3);
  for (let number = 0; number < 10; number++) {
    vanished.apply([part(`p${number}`, "web", "api")], 2 * number, keep);
    vanished.apply([], 2 * number + 1, keep);
  }
  deepStrictEqual(vanished.apply([], 20, keep).map(({ slice }) => slice), ["p0"]);
});

Deno.test("ten minutes while its Node is there, one when it has gone, seconds in a directory, which has no Nodes", () => {
  const nodes = (...names: string[]) => new Map(names.map((name) => [name, {}]));
  for (
    const [there, seconds] of [
      [nodes("n1", "n2"), 600],
      [nodes("n2"), 60],
      [nodes(), 4],
    ] as const
  ) {
    strictEqual(keptMilliseconds("n1", there), 1_000 * seconds);
  }
});
