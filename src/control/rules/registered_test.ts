import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import type { Peer, RegistryPart } from "../../cluster/registry.ts";
import { namesReady, NOT_NAMED, registeredOf, whyUnknown } from "./registered.ts";

const IDENTITY = "spiffe://cluster.local/ns/shop/sa/web";

function peer(uid: string, address: string, { ready = true, node = "n1" } = {}): Peer {
  return {
    uid,
    address,
    identity: IDENTITY,
    node,
    slice: "kube-gateway/one",
    pod: `shop/${uid}`,
    ready,
  };
}

function part(slice: string, ...peers: Peer[]): RegistryPart {
  return { slice, node: peers[0]?.node ?? "n1", peers, refused: [] };
}

Deno.test("of a node's pods all addresses are known, in whatever slices, and of others' nothing", () => {
  const registry = [
    part("ipv4-0", peer("a", "10.0.0.1"), peer("b", "10.0.0.2", { ready: false })),
    part("ipv4-1"),
    part("other", peer("c", "10.0.1.1", { node: "n2" })),
    part("ipv6-0", peer("a", "fd00::1")),
  ];
  deepStrictEqual(
    registeredOf(registry, "n1"),
    new Map([
      ["a", { ready: true, addresses: ["10.0.0.1", "fd00::1"], identity: IDENTITY }],
      ["b", { ready: false, addresses: ["10.0.0.2"], identity: IDENTITY }],
    ]),
  );
});

Deno.test("a pod of which one address is refused is not ready, wherever that stands", () => {
  for (const refused of [0, 1]) {
    const [one, other] = [0, 1].map((index) => ({ ready: index !== refused }));
    const registry = [part("x", peer("a", "10.0.0.1", one), peer("a", "10.0.0.2", other))];
    strictEqual(registeredOf(registry, "n1").get("a")?.ready, false);
  }
});

Deno.test("peers encrypt to a pod when the registry names it ready, as itself, and at each of its addresses", () => {
  const said = { ready: true, identity: IDENTITY, addresses: ["10.0.0.1", "fd00::1"] };
  for (
    const [registered, addresses, expected] of [
      [said, ["10.0.0.1", "fd00::1"], true],
      [said, ["fd00::1"], true],
      [said, ["10.0.0.1", "10.0.0.2"], false],
      [said, [], false],
      [undefined, ["10.0.0.1"], false],
      [{ ...said, ready: false }, ["10.0.0.1"], false],
      [{ ...said, identity: `${IDENTITY}-2` }, ["10.0.0.1"], false],
    ] as const
  ) {
    const pod = { identity: IDENTITY, addresses };
    strictEqual(namesReady(registered, pod), expected, JSON.stringify([registered, addresses]));
  }
});

Deno.test("other nodes' pods may connect in clear to a pod that is not named, has no Node, or is not believed", () => {
  const pod = { identity: IDENTITY, addresses: ["10.0.0.1", "fd00::1"] };
  const registered = { ready: true, ...pod };
  const evidence = { nodeName: "n1", hasNode: true, doubted: new Map<string, string>() };
  strictEqual(whyUnknown(registered, pod, evidence), undefined);
  strictEqual(whyUnknown(undefined, pod, evidence), NOT_NAMED);
  strictEqual(whyUnknown({ ...registered, ready: false }, pod, evidence), NOT_NAMED);
  match(whyUnknown(registered, pod, { ...evidence, hasNode: false }) ?? "", /no Node n1/);
  const doubted = new Map([["fd00::1", "is a Service's"], ["10.0.0.9", "is another pod's"]]);
  strictEqual(
    whyUnknown(registered, pod, { ...evidence, doubted }),
    "other nodes do not believe that it has fd00::1, which is a Service's",
  );
});
