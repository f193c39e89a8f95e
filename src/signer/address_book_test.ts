import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { readPod } from "../cluster/objects.ts";
import { AddressBook, holderOf } from "./address_book.ts";
import type { NodeFacts } from "../cluster/nodes.ts";

const node = (name: string, podCidrs: string[], address: string): [string, NodeFacts] => [
  name,
  { name, zone: undefined, podCidrs, addresses: [address] },
];
const NODES = new Map([
  node("a", ["10.1.0.0/24"], "192.0.2.1"),
  node("b", ["10.1.1.0/24"], "192.0.2.2"),
  node("c", ["10.1.2.0/24"], "192.0.2.3"),
]);

/** `pod on node: addresses`, by UID. */
function book(pods: Record<string, [node: string, ...addresses: string[]]>): AddressBook {
  const made = new AddressBook();
  made.nodes(NODES);
  made.pods(
    new Map(
      Object.entries(pods).map(([uid, [node, ...addresses]]) => [uid, {
        uid,
        name: `shop/${uid}`,
        node,
        addresses,
      }]),
    ),
  );
  return made;
}

Deno.test("nobody else may have a node's address, or another pod's", () => {
  const { ownersOf, node } = book({ web: ["a", "10.1.0.5"], db: ["b", "10.1.1.5", "fd01::5"] })
    .around({ node: "a", uid: "web" });
  const ownerOf = (address: string) => ownersOf(address)[0]?.name;
  strictEqual(node?.name, "a");
  strictEqual(ownerOf("10.1.0.5"), undefined, "its own");
  strictEqual(ownerOf("10.1.1.5"), "shop/db");
  strictEqual(ownerOf("fd01::5"), "shop/db");
  strictEqual(ownerOf("192.0.2.3"), "node c");
  strictEqual(ownerOf("10.1.0.9"), undefined);
});

Deno.test("two pods that claim one address are each the other's obstacle", () => {
  const both = book({ web: ["a", "10.1.0.5"], thief: ["b", "10.1.0.5"] });
  strictEqual(both.around({ node: "a", uid: "web" }).ownersOf("10.1.0.5")[0]?.name, "shop/thief");
  strictEqual(both.around({ node: "b", uid: "thief" }).ownersOf("10.1.0.5")[0]?.name, "shop/web");
});

Deno.test("whether podCIDRs are in use, the other nodes' pods show", () => {
  const used = { one: ["b", "10.1.1.5"], two: ["c", "10.1.2.5"] } as const;
  const uses = (pods: Record<string, readonly [string, ...string[]]>, at: string) =>
    book(structuredClone(pods) as Record<string, [string, ...string[]]>)
      .around({ node: at, uid: "x" }).usesRanges;
  strictEqual(uses(used, "a"), true);
  strictEqual(uses({ ...used, thief: ["a", "10.9.9.9"] }, "a"), true, "it has no voice");
  strictEqual(uses({ ...used, thief: ["a", "10.9.9.9"] }, "b"), false, "one says so, one not");
  strictEqual(uses({ one: ["b", "172.16.0.1"], two: ["c", "172.16.0.2"] }, "a"), false);
  strictEqual(uses({ one: ["b", "10.1.1.5", "fd01::5"] }, "a"), false, "one family of two");
  strictEqual(uses({}, "a"), false, "nobody knows");
});

Deno.test("a Node that is made anew with another's podCIDRs is the other's rival, and the other its", () => {
  const made = book({ web: ["b", "10.1.1.5"] });
  const rivals = (at: string) => made.around({ node: at, uid: "x" }).rivalsOf("10.1.1.5");
  deepStrictEqual(rivals("b"), []);
  deepStrictEqual(rivals("thief"), ["b"]);
  made.nodes(new Map([...NODES, node("thief", ["10.1.1.0/24"], "192.0.2.9")]));
  deepStrictEqual([rivals("b"), rivals("thief")], [["thief"], ["b"]]);
  made.nodes(NODES);
  deepStrictEqual(rivals("b"), []);
});

Deno.test("a pod that has ended, or is in its node's network, holds no address", () => {
  const holds = (change: object) =>
    holderOf(readPod({
      metadata: { name: "web", namespace: "shop", uid: "u" },
      spec: { nodeName: "a" },
      status: { phase: "Running", podIPs: [{ ip: "10.1.0.5" }] },
      ...change,
    }))?.addresses;
  deepStrictEqual(holds({}), ["10.1.0.5"]);
  strictEqual(holds({ spec: { nodeName: "a", hostNetwork: true } }), undefined);
  for (const phase of ["Succeeded", "Failed"]) {
    strictEqual(holds({ status: { phase, podIPs: [{ ip: "10.1.0.5" }] } }), undefined);
  }
  strictEqual(holds({ status: { phase: "Pending" } }), undefined);
  const metadata = {
    name: "web",
    namespace: "shop",
    uid: "u",
    deletionTimestamp: "2026-01-01T00:00:00Z",
  };
  strictEqual(holds({ metadata }), undefined);
});

Deno.test("before everything is listed nothing is known", () => {
  const made = new AddressBook();
  strictEqual(made.isComplete, false);
  made.nodes(NODES);
  strictEqual(made.isComplete, false);
  made.pods(new Map());
  strictEqual(made.isComplete, true);
});
