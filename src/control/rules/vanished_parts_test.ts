import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { Peer, RegistryPart } from "../../cluster/registry.ts";
import { VanishedParts } from "./vanished_parts.ts";

const part = (slice: string, ...uids: string[]): RegistryPart => ({
  slice,
  node: "n1",
  peers: uids.map((uid): Peer => ({
    uid,
    address: "10.0.0.1",
    identity: "spiffe://cluster.local/ns/default/sa/web",
    node: "n1",
    pod: `default/${uid}`,
    ready: true,
  })),
  refused: [],
});

Deno.test("a part that goes whole is kept for a while, and no longer", () => {
  const vanished = new VanishedParts(4_000);
  const [a, b] = [part("a", "web"), part("b", "api")];
  deepStrictEqual(vanished.apply([a, b], 0), [a, b]);
  deepStrictEqual(vanished.apply([b], 1_000), [b, a]);
  strictEqual(vanished.next, 5_000);
  deepStrictEqual(vanished.apply([b], 4_999), [b, a], "however often it is asked");
  deepStrictEqual(vanished.apply([b], 5_000), [b]);
  strictEqual(vanished.next, undefined);
});

Deno.test("a part that is written again is what it says then", () => {
  const vanished = new VanishedParts(4_000);
  vanished.apply([part("a", "web")], 0);
  vanished.apply([], 1_000);
  const again = part("a", "other");
  deepStrictEqual(vanished.apply([again], 2_000), [again]);
  strictEqual(vanished.next, undefined);
});

Deno.test("a part that was emptied before is not kept", () => {
  const vanished = new VanishedParts(4_000);
  vanished.apply([part("a")], 0);
  deepStrictEqual(vanished.apply([], 1_000), []);
});
