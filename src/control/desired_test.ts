import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { type ClusterObjects, type Pod, readSlice } from "./cluster/objects.ts";
import { desiredState } from "./desired.ts";
import { type RegistryEntry, slicesOf } from "./registry.ts";

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

function objects(pods: Pod[], entries: RegistryEntry[] = []): ClusterObjects {
  const nodes = [...new Set(entries.map(({ node }) => node))];
  const slices = nodes.flatMap((node) =>
    slicesOf(node, entries.filter((entry) => entry.node === node))
  );
  return { pods, registry: slices.flatMap((s) => readSlice(s) ?? []), complete: true };
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
  };
}

const desired = (o: ClusterObjects) => desiredState(o, "n1", "td");

Deno.test("an annotated local pod is to be enrolled", () => {
  const { enrolments, refused } = desired(objects([A]));
  deepStrictEqual(refused, []);
  deepStrictEqual([...enrolments], [["uid-a", {
    uid: "uid-a",
    namespace: "shop",
    name: "a",
    serviceAccount: "sa-a",
    identity: "spiffe://td/ns/shop/sa/sa-a",
    addresses: ["10.0.0.1"],
    cgroupUids: ["uid-a"],
  }]]);
});

Deno.test("who is enrolled, who is left alone, who is refused", () => {
  const annotated = (value: string) => ({ annotations: { "kube-gateway.io": value } });
  for (
    const [name, change, enrolled, reason] of [
      ["running", {}, true, undefined],
      ["pending, no address yet", { phase: "Pending", addresses: [] }, true, undefined],
      ["unknown phase", { phase: "Unknown" }, true, undefined],
      ["being deleted, still running", { deleting: true }, true, undefined],
      ["ended well", { phase: "Succeeded" }, false, undefined],
      ["ended badly", { phase: "Failed" }, false, undefined],
      ["ended while being deleted", { phase: "Failed", deleting: true }, false, undefined],
      ["ended, with a bad annotation", { phase: "Failed", ...annotated("x") }, false, undefined],
      ["no annotation", { annotations: {} }, false, undefined],
      ["other annotations", { annotations: { "kube-gateway.io/x": "true" } }, false, undefined],
      ["false", annotated("false"), false, undefined],
      ["on another node", { nodeName: "n2" }, false, undefined],
      ["on another node, bad annotation", { nodeName: "n2", ...annotated("x") }, false, undefined],
      ["not scheduled", { nodeName: "" }, false, undefined],
      ["True", annotated("True"), false, /"true" or "false", not "True"/],
      ["empty", annotated(""), false, /not ""/],
      ["blank", annotated("true "), false, /not "true "/],
      ["a cut value", annotated("true" + "x".repeat(252) + "…"), false, /not "truexx/],
      ["control characters", annotated("tr\nue"), false, /not "tr\\nue"/],
      ["host network", { hostNetwork: true }, false, /hostNetwork/],
      ["host network, false", { hostNetwork: true, ...annotated("false") }, false, undefined],
      ["loopback", { addresses: ["127.0.0.1"] }, false, /127\.0\.0\.1 is loopback/],
    ] as const
  ) {
    const { enrolments, refused } = desired(objects([{ ...A, ...change }]));
    strictEqual(enrolments.has("uid-a"), enrolled, name);
    strictEqual(refused.length, reason === undefined ? 0 : 1, name);
    const [only] = refused;
    if (reason === undefined || only === undefined) continue;
    match(only.reason, reason, name);
    strictEqual(only.reason.length < 150, true, name);
    deepStrictEqual([only.uid, only.namespace, only.name], ["uid-a", "shop", "a"]);
  }
});

Deno.test("a static pod's cgroup is looked for by its hash, never by another pod's UID", () => {
  const withHash = (hash: string) => ({
    ...A,
    annotations: { ...A.annotations, "kubernetes.io/config.hash": hash },
  });
  const uids = (pod: Pod) => desired(objects([pod, B])).enrolments.get("uid-a")?.cgroupUids;
  deepStrictEqual(uids(withHash("0123456789abcdef")), ["uid-a", "0123456789abcdef"]);
  for (const hash of ["uid-b", "uid-a", "..", "a/b", ""]) {
    deepStrictEqual(uids(withHash(hash)), ["uid-a"], hash);
  }
});

Deno.test("peers are the registry's entries of all nodes, by address", () => {
  const remote: Pod = { ...B, nodeName: "n2", addresses: ["10.0.0.2", "fd00::2"] };
  const { peers, conflicts, refusedEntries } = desired(
    objects([A], [entryOf(A), entryOf(remote)]),
  );
  const peer = (pod: Pod, address: string) => ({
    address,
    identity: `spiffe://td/ns/shop/sa/${pod.serviceAccount}`,
    uid: pod.uid,
    pod: `shop/${pod.name}`,
    node: pod.nodeName,
  });
  deepStrictEqual(
    peers,
    new Map([
      ["10.0.0.1", peer(A, "10.0.0.1")],
      ["10.0.0.2", peer(remote, "10.0.0.2")],
      ["fd00::2", peer(remote, "fd00::2")],
    ]),
  );
  deepStrictEqual([conflicts, refusedEntries], [[], []]);
});

Deno.test("a pod is a peer only through the registry, and a refused entry is reported", () => {
  strictEqual(desired(objects([A])).peers.size, 0);
  const { peers, refusedEntries } = desiredState(objects([A], [entryOf(A)]), "n1", "other");
  strictEqual(peers.size, 0);
  match(refusedEntries[0]?.reason ?? "", /another trust domain/);
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
      ["A is a dead node's", [B], remote, {}, "uid-b", /running.*not visible/],
      ["B is not visible, A is gone", [], {}, remote, "uid-b", /not visible here.*contradicted/],
      [
        "B is being deleted, A is not visible",
        [{ ...B, deleting: true }],
        remote,
        {},
        "uid-b",
        /./,
      ],
      ["A runs", [A], {}, remote, "uid-a", /running/],
      ["both run", [A, B], {}, {}, "uid-a", /smallest UID/],
      ["neither is visible", [], remote, { nodeName: "n3" }, "uid-a", /smallest UID/],
    ] as [string, Pod[], Partial<Pod>, Partial<Pod>, string, RegExp][]
  ) {
    const entries = [entryOf({ ...A, ...a }), entryOf({ ...B, ...b })];
    for (const order of [entries, [...entries].reverse()]) {
      const { peers, conflicts } = desired(objects(pods, order));
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

Deno.test("an address stays a peer's even when nothing supports its claim: nothing leaves in clear", () => {
  const { peers, conflicts } = desired(objects([], [entryOf(A)]));
  strictEqual(peers.get("10.0.0.1")?.uid, "uid-a");
  deepStrictEqual(conflicts, []);
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
    for (const { event } of order) {
      seen += ` ${event.name},`;
      if (event.pod === undefined) {
        gone.add(event.uid);
        pods.delete(event.uid);
      } else if (!gone.has(event.uid)) pods.set(event.uid, event.pod);

      const truth = [...pods.values()];
      const { enrolments, peers } = desired(objects(truth, truth.map(entryOf)));
      deepStrictEqual([...enrolments.keys()], [...pods.keys()], seen);
      strictEqual(peers.has("10.0.0.1"), pods.size > 0, seen);
      strictEqual(enrolments.has(B.uid), pods.has(B.uid), seen);
      const holder = peers.get("10.0.0.1")?.uid;
      strictEqual(holder === undefined || pods.has(holder), true, `${seen} stale ${holder}`);
    }
    // A's registry entry may outlive A for any time: B is not lost by it either.
    const { enrolments, peers } = desired(objects([...pods.values()], [entryOf(A), entryOf(B)]));
    deepStrictEqual([...enrolments.keys()], [B.uid], seen);
    strictEqual(peers.get("10.0.0.1")?.uid, B.uid, seen);
    strictEqual(peers.size, 1, seen);
  }
  strictEqual(orders, 2520); // 8! / 2!^4
});

function* permutations<T>(items: T[]): Generator<T[]> {
  if (items.length === 0) return yield [];
  for (const [i, item] of items.entries()) {
    for (const rest of permutations(items.toSpliced(i, 1))) yield [item, ...rest];
  }
}
