import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { NOBODY_DENIED } from "../../cluster/deny_list.ts";
import type { ClusterObjects } from "../../cluster/cluster.ts";
import { type Pod, readSlice } from "../../cluster/objects.ts";
import { desiredState } from "./desired.ts";
import { type PeerChange, PeerIndex } from "./peer_index.ts";
import { partOf, type RegistryEntry, slicesOf } from "../../cluster/registry.ts";

const A: Pod = {
  uid: "uid-a",
  namespace: "shop",
  name: "a",
  nodeName: "n1",
  serviceAccount: "sa-a",
  annotations: { "kube-gateway.io": "true" },
  addresses: ["10.0.0.1"],
  hostNetwork: false,
  phase: "Running",
  deleting: false,
};
const B: Pod = { ...A, uid: "uid-b", name: "b", serviceAccount: "sa-b" };

function objects(pods: Pod[], entries: RegistryEntry[] = [], trustDomain = "td"): ClusterObjects {
  const nodes = [...new Set(entries.map(({ node }) => node))];
  const slices = nodes.flatMap((node) =>
    slicesOf(node, entries.filter((entry) => entry.node === node))
  );
  return {
    pods,
    namespaces: new Map(),
    registry: slices.flatMap((s) => readSlice(s) ?? []).map((s) => partOf(s, trustDomain)),
    services: new Map(),
    nodes: new Map(),
    denied: NOBODY_DENIED,
    unread: [],
    endpoints: new Map(),
    hasNamespaces: false,
    runtimeHandlers: new Map(),
    complete: true,
  };
}

/** The entry that a pod's agent publishes. */
function entryOf(pod: Pod): RegistryEntry {
  return {
    uid: pod.uid,
    namespace: pod.namespace,
    name: pod.name,
    identity: `spiffe://td/ns/${pod.namespace}/sa/${pod.serviceAccount}`,
    node: pod.nodeName,
    addresses: pod.addresses,
    ready: true,
  };
}

Deno.test("peers are the registry's entries of all nodes, by address", () => {
  const remote: Pod = { ...B, nodeName: "n2", addresses: ["10.0.0.2", "fd00::2"] };
  const state = objects([A], [entryOf(A), entryOf(remote)]);
  const index = indexOf(state);
  const peer = (pod: Pod, address: string) => ({
    address,
    identity: `spiffe://td/ns/shop/sa/${pod.serviceAccount}`,
    uid: pod.uid,
    pod: `shop/${pod.name}`,
    node: pod.nodeName,
    slice: `kube-gateway/registry-${pod.nodeName}-ipv${address.includes(":") ? 6 : 4}-0`,
    ready: true,
  });
  deepStrictEqual(
    new Map([...index].map((peer) => [peer.address, peer])),
    new Map([
      ["10.0.0.1", peer(A, "10.0.0.1")],
      ["10.0.0.2", peer(remote, "10.0.0.2")],
      ["fd00::2", peer(remote, "fd00::2")],
    ]),
  );
  deepStrictEqual([index.conflicts(), state.registry[0]?.refused], [[], []]);
  strictEqual(index.size, 3);
});

Deno.test("a pod is a peer only through the registry, and a refused entry is reported", () => {
  strictEqual(indexOf(objects([A])).size, 0);
  const state = objects([A], [entryOf(A)], "other");
  strictEqual(indexOf(state).size, 0);
  match(state.registry[0]?.refused[0]?.reason ?? "", /another trust domain/);
});

Deno.test("of two claims to an address the one the pod objects support best is believed", () => {
  const remote = { nodeName: "n2" };
  // By UID alone A would win each time, so every win of B has its reason.
  for (
    const [name, pods, a, b, winner, reason] of [
      ["A is gone from our node", [B], {}, {}, "uid-b", /running.*contradicted/],
      ["A has ended", [{ ...A, phase: "Succeeded" }, B], {}, {}, "uid-b", /contradicted/],
      ["A has another address", [{ ...A, addresses: [] }, B], {}, {}, "uid-b", /contradicted/],
      ["A is being deleted", [{ ...A, deleting: true }, B], {}, {}, "uid-b", /being deleted/],
      ["B is not visible, A is gone", [], {}, remote, "uid-b", /not visible here.*contradicted/],
      [
        "B is being deleted, A is not visible",
        [{ ...B, deleting: true }],
        remote,
        {},
        "uid-b",
        /./,
      ],
      ["both run", [A, B], {}, {}, "uid-a", /smallest UID/],
      ["neither is visible", [], remote, { nodeName: "n3" }, "uid-a", /smallest UID/],
    ] as [string, Pod[], Partial<Pod>, Partial<Pod>, string, RegExp][]
  ) {
    const entries = [entryOf({ ...A, ...a }), entryOf({ ...B, ...b })];
    for (const order of [entries, [...entries].reverse()]) {
      const peers = indexOf(objects(pods, order));
      const conflicts = peers.conflicts();
      strictEqual(peers.get("10.0.0.1")?.uid, winner, name);
      strictEqual(conflicts.length, 1, name);
      strictEqual(conflicts[0]?.winner.uid, winner, name);
      deepStrictEqual(
        conflicts[0]?.losers.map(({ uid }) => uid),
        [winner === "uid-a" ? "uid-b" : "uid-a"],
        name,
      );
      match(conflicts[0]?.reason ?? "", reason, name);
    }
  }
});

Deno.test("a claim to the address of a pod that runs here is not believed, and said", () => {
  for (
    const [runs, a, b] of [[A, {}, { nodeName: "n2" }], [B, { nodeName: "n2" }, {}]] as const
  ) {
    const peers = indexOf(objects([runs], [entryOf({ ...A, ...a }), entryOf({ ...B, ...b })]));
    strictEqual(peers.get("10.0.0.1")?.uid, runs.uid);
    match(
      peers.contradictions()[0]?.message ?? "",
      /node n2 names 10\.0\.0\.1, which is that of pod/,
    );
  }
});

Deno.test("an address stays a peer's even when nothing supports its claim: nothing leaves in clear", () => {
  const peers = indexOf(objects([], [entryOf(A)]));
  strictEqual(peers.get("10.0.0.1")?.uid, "uid-a");
  deepStrictEqual(peers.conflicts(), []);
});

Deno.test("in every order of a reused address's events the maps equal the truth", () => {
  const grown: Pod = { ...B, annotations: { ...B.annotations, "kube-gateway.io/note": "x" } };
  type Event = { name: string; uid: string; pod?: Pod };
  const events: Event[] = [
    { name: "add A", uid: A.uid, pod: A },
    { name: "delete A", uid: A.uid },
    { name: "add B", uid: B.uid, pod: B },
    { name: "update B", uid: B.uid, pod: grown },
  ];
  let orders = 0;
  for (const order of permutations([...events, ...events].map((event, i) => ({ event, i })))) {
    // Duplicates are alike: of the 8! orders only those count that differ.
    const firstSeen = order.map(({ i }) => i);
    if (events.some((_, i) => firstSeen.indexOf(i) > firstSeen.indexOf(i + 4))) continue;
    orders++;
    const pods = new Map<string, Pod>();
    const gone = new Set<string>(); // a UID is never used again, so a late add is no pod
    let seen = "";
    const peers = new PeerIndex("n1");
    const map = new Map<string, string>(); // as whoever obeys the changes has it
    for (const { event } of order) {
      seen += ` ${event.name},`;
      if (event.pod === undefined) {
        gone.add(event.uid);
        pods.delete(event.uid);
      } else if (!gone.has(event.uid)) pods.set(event.uid, event.pod);

      const truth = [...pods.values()];
      const state = objects(truth, truth.map(entryOf));
      deepStrictEqual(
        [...desiredState(state, "n1", "td").enrolments.keys()],
        [...pods.keys()],
        seen,
      );
      obey(map, peers.update(state));
      strictEqual(map.has("10.0.0.1"), pods.size > 0, seen);
      strictEqual(map.get("10.0.0.1"), peers.get("10.0.0.1")?.uid, seen);
      const holder = peers.get("10.0.0.1")?.uid;
      strictEqual(holder === undefined || pods.has(holder), true, `${seen} stale ${holder}`);
    }
    // A's registry entry may outlive A for any time: B is not lost by it either.
    obey(map, peers.update(objects([...pods.values()], [entryOf(A), entryOf(B)])));
    deepStrictEqual([...map], [["10.0.0.1", B.uid]], seen);
    strictEqual(peers.size, 1, seen);
  }
  strictEqual(orders, 2520); // 8! / 2!^4
});

Deno.test("only what differs is a change, and an incomplete state takes nothing away", () => {
  const index = new PeerIndex("n1");
  const remote: Pod = { ...B, nodeName: "n2", addresses: ["10.0.0.2"] };
  const state = objects([A], [entryOf(A), entryOf(remote)]);
  strictEqual(index.update(state).length, 2);
  deepStrictEqual(index.update(state), []);
  deepStrictEqual(index.update(objects([A], [entryOf(A), entryOf(remote)])), [], "read anew");
  const part = objects([A], [entryOf(A)]);
  deepStrictEqual(index.update({ ...part, complete: false }), []);
  deepStrictEqual(index.update(part).map(({ address, now }) => [address, now]), [
    ["10.0.0.2", undefined],
  ]);
  const [moved] = index.update(objects([A], [{ ...entryOf(A), uid: "uid-new" }]));
  deepStrictEqual([moved?.before?.uid, moved?.now?.uid], ["uid-a", "uid-new"]);
});

Deno.test("a pod that stands in two slices is no conflict, and one of them may go", () => {
  const index = new PeerIndex("n1");
  const one = objects([A], [entryOf(A)]).registry;
  const two = one.map((part) => ({ ...structuredClone(part), slice: `${part.slice}-copy` }));
  const state = { ...objects([A]), registry: [...one, ...two] };
  strictEqual(index.update(state).length, 1);
  deepStrictEqual(index.conflicts(), []);
  deepStrictEqual(index.update({ ...state, registry: two }), []);
  strictEqual(index.get("10.0.0.1")?.uid, A.uid);
  strictEqual(index.update({ ...state, registry: [] }).length, 1);
  strictEqual(index.size, 0);
});

function indexOf(state: ClusterObjects): PeerIndex {
  const index = new PeerIndex("n1");
  index.update(state);
  return index;
}

function obey(map: Map<string, string>, changes: PeerChange[]): void {
  for (const { address, now } of changes) {
    if (now === undefined) map.delete(address);
    else map.set(address, now.uid);
  }
}

function* permutations<T>(items: T[]): Generator<T[]> {
  if (items.length === 0) return yield [];
  for (const [i, item] of items.entries()) {
    for (const rest of permutations(items.toSpliced(i, 1))) yield [item, ...rest];
  }
}

Deno.test("an address that several nodes' registries claim is whose certificate was seen, and lasts longest", () => {
  const owner: Pod = { ...B, uid: "uid-z", nodeName: "n2" };
  const thief = {
    ...entryOf({ ...A, uid: "0", nodeName: "n3" }),
    identity: "spiffe://td/ns/shop/sa/thief",
  };
  const state = objects([], [entryOf(owner), thief]);
  const index = indexOf(state);
  const identityNow = () => {
    index.update(state);
    return index.get("10.0.0.1")?.identity;
  };
  const of = (identity: string, notAfter: number) => ({ address: "10.0.0.1", identity, notAfter });
  const { identity } = entryOf(owner);
  strictEqual(identityNow(), thief.identity, "nothing tells them apart");

  strictEqual(index.shown(of("spiffe://td/ns/shop/sa/other", 9)), false, "nobody claims it");
  strictEqual(index.shown({ ...of(identity, 9), address: "10.0.0.9" }), false);
  strictEqual(index.shown(of(identity, 2)), true);
  strictEqual(identityNow(), identity);
  match(index.conflicts()[0]?.reason ?? "", /certificate/);
  strictEqual(index.shown(of(identity, 3)), false, "it is so already");

  strictEqual(
    index.shown(of(thief.identity, 1)),
    false,
    "an older one, of the address's former pod",
  );
  strictEqual(index.shown(of(thief.identity, 5)), true);
  strictEqual(identityNow(), thief.identity);
});

Deno.test("a claim under the same UID is a rival unless it says the same", () => {
  const owner: Pod = { ...B, uid: "uid-z", nodeName: "n2" };
  const rival = { ...entryOf({ ...owner, nodeName: "n3" }), identity: "spiffe://td/ns/shop/sa/a" };
  const index = indexOf(objects([], [entryOf(owner), rival]));
  strictEqual(index.conflicts().length, 1);
  const unready = { ...entryOf({ ...owner, nodeName: "n1" }), ready: false };
  const other = indexOf(objects([], [unready, entryOf(owner)]));
  deepStrictEqual([other.conflicts().length, other.get("10.0.0.1")?.ready], [1, true]);
});
