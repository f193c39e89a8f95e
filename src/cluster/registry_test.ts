import { deepStrictEqual, match, strictEqual, throws } from "node:assert/strict";
import { readSlice, type RegistrySlice } from "./objects.ts";
import { partOf, type Peer, type RegistryEntry, slicesOf } from "./registry.ts";

const WEB: RegistryEntry = {
  uid: "uid-web",
  namespace: "shop",
  name: "web-0",
  identity: "spiffe://cluster.local/ns/shop/sa/web",
  node: "n1",
  addresses: ["10.0.0.1", "fd00::1"],
  ready: true,
};
const DB: RegistryEntry = {
  ...WEB,
  uid: "uid-db",
  name: "db-0",
  identity: "spiffe://cluster.local/ns/shop/sa/db",
  addresses: ["10.0.0.2"],
};

/** What comes back after the API server: JSON, read as any object from outside. */
function read(node: string, entries: RegistryEntry[]): RegistrySlice[] {
  return slicesOf(node, entries).flatMap((slice) =>
    readSlice(JSON.parse(JSON.stringify(slice))) ?? []
  );
}

Deno.test("what a node publishes is an ordinary EndpointSlice", () => {
  const [ipv4, ipv6, ...more] = slicesOf("n1", [WEB, DB]);
  strictEqual(more.length, 0);
  deepStrictEqual(ipv4, {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: "registry-n1-ipv4-0",
      namespace: "kube-gateway",
      labels: {
        "kube-gateway.io/registry-node": "n1",
        "endpointslice.kubernetes.io/managed-by": "kube-gateway.io",
      },
      annotations: {
        "kube-gateway.io/identities": '{"uid-db":"spiffe://cluster.local/ns/shop/sa/db",' +
          '"uid-web":"spiffe://cluster.local/ns/shop/sa/web"}',
      },
    },
    addressType: "IPv4",
    endpoints: [
      {
        addresses: ["10.0.0.2"],
        conditions: { ready: true },
        nodeName: "n1",
        targetRef: { kind: "Pod", namespace: "shop", name: "db-0", uid: "uid-db" },
      },
      {
        addresses: ["10.0.0.1"],
        conditions: { ready: true },
        nodeName: "n1",
        targetRef: { kind: "Pod", namespace: "shop", name: "web-0", uid: "uid-web" },
      },
    ],
    ports: [{ name: "tunnel", port: 18443, protocol: "TCP" }],
  });
  strictEqual(ipv6?.addressType, "IPv6");
  strictEqual(ipv6?.metadata.name, "registry-n1-ipv6-0");
  deepStrictEqual(ipv6?.endpoints.map(({ addresses }) => addresses), [["fd00::1"]]);
});

Deno.test("published entries come back as they were, at most 100 in a slice, in one order", () => {
  const entries = Array.from({ length: 250 }, (_, i): RegistryEntry => ({
    ...WEB,
    uid: `uid-${String(i).padStart(3, "0")}`,
    name: `web-${i}`,
    addresses: i % 2 ? [`10.0.1.${i}`] : [`10.0.1.${i}`, `fd00::${(i + 1).toString(16)}`],
  }));
  const slices = read("n1", entries);
  deepStrictEqual(slices.map(({ endpoints }) => endpoints.length), [100, 100, 50, 100, 25]);
  strictEqual(new Set(slices.map(({ name }) => name)).size, 5);
  const parts = slices.map((slice) => partOf(slice, "cluster.local"));
  deepStrictEqual(parts.flatMap(({ refused }) => refused), []);
  deepStrictEqual(
    parts.flatMap(({ peers }) => peers).map(({ uid, address }) => `${uid} ${address}`).sort(),
    entries.flatMap(({ uid, addresses }) => addresses.map((a) => `${uid} ${a}`)).sort(),
  );
  deepStrictEqual(parts[0]?.peers[0], {
    address: "10.0.1.0",
    identity: WEB.identity,
    uid: "uid-000",
    pod: "shop/web-0",
    node: "n1",
    slice: "kube-gateway/registry-n1-ipv4-0",
    ready: true,
  });
  deepStrictEqual(slicesOf("n1", [...entries].reverse()), slicesOf("n1", entries));
  deepStrictEqual(slicesOf("n1", []), []);
});

Deno.test("nodes do not share slice names", () => {
  const names = ["a", "a-ipv4-0", "a.b"].flatMap((node) =>
    slicesOf(node, [{ ...WEB, node }]).map(({ metadata }) => metadata.name)
  );
  strictEqual(new Set(names).size, 6);
});

Deno.test("a node's name that is no label value is refused", () => {
  for (const node of ["", "../x", "a/b", "A", "a".repeat(64), ".", "a\n"]) {
    throws(() => slicesOf(node, []), TypeError);
  }
  slicesOf("a".repeat(63), []);
});

Deno.test("another node's pod is not published", () => {
  throws(() => slicesOf("n2", [WEB]), /runs on "n1"/);
});

type Change = (slice: RegistrySlice) => unknown;
const endpoint = (change: Record<string, unknown>): Change => (slice) => ({
  ...slice,
  endpoints: slice.endpoints.map((e, i) => i === 0 ? { ...e, ...change } : e),
});
const target = (change: Record<string, unknown>): Change => (slice) =>
  endpoint({ targetRef: { ...slice.endpoints[0]?.targetRef, ...change } })(slice);
const identities = (text: string): Change => (slice) => ({
  ...slice,
  annotations: { "kube-gateway.io/identities": text },
});

const REFUSED_ENDPOINTS: [string, Change, RegExp][] = [
  ["address not canonical", endpoint({ addresses: ["010.0.0.2"] }), /no IP address/],
  ["mapped address", endpoint({ addresses: ["::ffff:10.0.0.2"] }), /canonical/],
  ["other family", endpoint({ addresses: ["fd00::2"] }), /not IPv4/],
  ["loopback", endpoint({ addresses: ["127.0.0.1"] }), /loopback/],
  ["unspecified", endpoint({ addresses: ["0.0.0.0"] }), /unspecified/],
  ["multicast", endpoint({ addresses: ["224.0.0.1"] }), /multicast/],
  ["link-local", endpoint({ addresses: ["169.254.169.254"] }), /link-local/],
  ["two addresses", endpoint({ addresses: ["10.0.0.2", "10.0.0.3"] }), /2 addresses/],
  ["no address", endpoint({ addresses: [] }), /0 addresses/],
  ["a host name", endpoint({ addresses: ["db.shop"] }), /no IP address/],
  ["another node's pod", endpoint({ nodeName: "n2" }), /"n2".*n1/],
  ["no node", endpoint({ nodeName: "" }), /on node ""/],
  ["target kind", target({ kind: "Node" }), /"Node"/],
  ["target UID", target({ uid: ".." }), /UID/],
  ["target namespace", target({ namespace: "a/b" }), /namespace/],
  ["target name", target({ name: "" }), /name/],
  ["another namespace's identity", target({ namespace: "bank" }), /shop for a pod in bank/],
  ["an identity missing", target({ uid: "uid-other" }), /no identity/],
  ["the object's own prototype", target({ uid: "constructor" }), /no identity/],
  [
    "identity of another trust domain",
    identities(
      '{"uid-web":"spiffe://cluster.local/ns/shop/sa/web","uid-db":"spiffe://evil/ns/shop/sa/db"}',
    ),
    /another trust domain/,
  ],
  [
    "identity no string",
    identities(
      '{"uid-web":"spiffe://cluster.local/ns/shop/sa/web","uid-db":1}',
    ),
    /no identity/,
  ],
];

Deno.test("an entry that its node may not publish is refused, the others stay", () => {
  for (const [name, change, reason] of REFUSED_ENDPOINTS) {
    const [slice] = read("n1", [{ ...WEB, addresses: ["10.0.0.1"] }, DB]);
    const changed = change(slice as RegistrySlice) as RegistrySlice;
    const { peers, refused } = partOf(changed, "cluster.local");
    deepStrictEqual(peers.map(({ uid }) => uid), ["uid-web"], name);
    strictEqual(refused.length, 1, name);
    match(refused[0]?.reason ?? "", reason, name);
    strictEqual(refused[0]?.slice, "registry-n1-ipv4-0");
  }
});

Deno.test("a slice that no agent would have written is refused whole", () => {
  for (
    const [change, reason] of [
      [{ namespace: "shop" }, /in namespace "shop"/],
      [{ node: "../x" }, /no node name/],
      [{ node: "" }, /no node name/],
      [{ node: "a".repeat(64) }, /no node name/],
      [{ addressType: "FQDN" }, /FQDN/],
      [{ annotations: {} }, /no annotation/],
      [{ annotations: { "kube-gateway.io/identities": "[]" } }, /no JSON object/],
      [{ annotations: { "kube-gateway.io/identities": "null" } }, /no JSON object/],
      [{ annotations: { "kube-gateway.io/identities": "{" } }, /no JSON object/],
      [{ ports: [] }, /ports/],
      [{ ports: [{ name: "tunnel", port: 80, protocol: "TCP" }] }, /ports/],
      [{ ports: [{ name: "tunnel", port: 18443, protocol: "UDP" }] }, /ports/],
      [{ ports: [{ name: "http", port: 18443, protocol: "TCP" }] }, /ports/],
      [{ endpoints: Array(101).fill(read("n1", [DB])[0]?.endpoints[0]) }, /101 endpoints/],
    ] as const
  ) {
    const [slice] = read("n1", [DB]);
    const { peers, refused } = partOf({ ...slice, ...change } as RegistrySlice, "cluster.local");
    deepStrictEqual(peers, [], String(reason));
    strictEqual(refused.length, 1);
    match(refused[0]?.reason ?? "", reason);
    strictEqual(refused[0] !== undefined && "uid" in refused[0], false);
  }
});

Deno.test("a pod that cannot be served is a peer that is not ready", () => {
  const [slice] = read("n1", [{ ...DB, ready: false }]);
  const { peers, refused } = partOf(slice as RegistrySlice, "cluster.local");
  deepStrictEqual(peers.map(({ uid, ready }) => ({ uid, ready })), [{
    uid: "uid-db",
    ready: false,
  }]);
  deepStrictEqual(refused, []);
});

Deno.test("naming an address twice is naming it once", () => {
  const [twice] = read("n1", [{ ...DB, addresses: ["10.0.0.2", "10.0.0.2"] }]);
  const { peers } = partOf(twice as RegistrySlice, "cluster.local");
  deepStrictEqual(peers.map(({ address }: Peer) => address), ["10.0.0.2"]);
});
