import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { NAMESPACE, POD_UID, podObject, requestBody } from "../../tests/lab/signing.ts";
import { readPod } from "../cluster/objects.ts";
import { authorise, DENIALS, type Verdict } from "./authorise.ts";
import { type NodeFacts, readNode } from "../cluster/nodes.ts";
import { type CsrFacts, readCsr } from "./facts.ts";

const AGENT = `system:serviceaccount:${NAMESPACE}:kube-gateway-agent`;
const CLAIM = "authentication.kubernetes.io/node-name";
const SETTINGS = { signerName: "kube-gateway.io/pod", requester: AGENT, ttlSeconds: 3600 };
const NODE: NodeFacts = {
  name: "node-a",
  zone: undefined,
  podCidrs: ["10.1.0.0/24", "fd01::/64"],
  addresses: ["10.1.0.250"],
};
/** What is around a claim from a node, in a cluster whose IPAM uses podCIDRs when `usesRanges`. */
const around = (
  node?: NodeFacts,
  usesRanges = false,
  owners: Record<string, string> = {},
  rivals: readonly string[] = [],
) => ({
  node: node?.name === "node-a" ? node : undefined,
  usesRanges,
  rivalsOf: () => rivals,
  ownersOf: (address: string) => [
    ...node?.addresses.includes(address)
      ? [{ name: `node ${node.name}`, node: node.name, isNode: true }]
      : [],
    ...owners[address] === undefined ? [] : [{ name: "bank/db", node: owners[address] }],
  ],
});
const LEGAL: CsrFacts = {
  name: "x",
  uid: "u",
  resourceVersion: "1",
  createdAt: new Date(),
  signerName: SETTINGS.signerName,
  username: AGENT,
  extra: { [CLAIM]: ["node-a"] },
  usages: ["digital signature", "server auth", "client auth"],
  expirationSeconds: undefined,
  annotations: {
    "kube-gateway.io/pod-namespace": "shop",
    "kube-gateway.io/pod-name": "web-0",
    "kube-gateway.io/pod-uid": POD_UID,
    "kube-gateway.io/pod-addresses": "10.1.0.5",
  },
  request: new Uint8Array(),
  requestLength: 0,
  state: "pending",
  conditions: [],
};

const asking = (key: string, value: string): Partial<CsrFacts> => ({
  annotations: { ...LEGAL.annotations, [`kube-gateway.io/pod-${key}`]: value },
});
const at = (addresses: string) => asking("addresses", addresses);
const P = pod();
const called = (metadata: Record<string, unknown>) => pod({}, undefined, metadata);
const young = pod({}, { phase: "Pending", podIPs: undefined });
const dual = pod({}, { phase: "Running", podIPs: [{ ip: "10.1.0.5" }, { ip: "fd01::5" }] });
const liar = (ip: string) => pod({}, { phase: "Running", podIPs: [{ ip }] });
const mirror = pod({}, undefined, { annotations: { "kubernetes.io/config.mirror": "h" } });
const stranger = { username: "system:serviceaccount:shop:kube-gateway-agent" };

/** What is asked, the pod, the node, and the verdict: "allow", "wait…" or the code of a denial. */
const CASES: [string, Partial<CsrFacts>, unknown, NodeFacts | undefined, string][] = [
  ["legal", {}, P, undefined, "allow"],
  ["fewer usages", { usages: ["client auth"] }, P, undefined, "allow"],
  ["ten minutes", { expirationSeconds: 600 }, P, undefined, "allow"],
  ["other spelling", at("::ffff:10.1.0.5"), P, undefined, "allow"],
  ["both families", at("fd01:0::5,10.1.0.5"), dual, undefined, "allow"],
  ["an address more", at("10.1.0.5,fd01::5"), P, NODE, "AddressMismatch"],
  ["one of two", {}, dual, undefined, "AddressMismatch"],
  ["other signer", { signerName: "a.b/c" }, P, undefined, "WrongSigner"],
  ["empty requester", { username: "" }, P, undefined, "WrongRequester"],
  ["other namespace's agent", stranger, P, undefined, "WrongRequester"],
  ["no claim", { extra: {} }, P, undefined, "NoNodeClaim"],
  ["empty claim", { extra: { [CLAIM]: [] } }, P, undefined, "NoNodeClaim"],
  ["two claims", { extra: { [CLAIM]: ["node-a", "node-b"] } }, P, undefined, "NoNodeClaim"],
  ["no name", { extra: { [CLAIM]: [""] } }, pod({ nodeName: "" }), undefined, "NoNodeClaim"],
  ["CA usage", { usages: ["cert sign"] }, P, undefined, "BadUsages"],
  ["no lifetime", { expirationSeconds: 0 }, P, undefined, "BadExpiration"],
  ["half a second", { expirationSeconds: 0.5 }, P, undefined, "BadExpiration"],
  ["no annotations", { annotations: {} }, P, undefined, "NoPod"],
  ["path in namespace", asking("namespace", "shop/pods/x"), P, undefined, "NoPod"],
  ["path in name", asking("name", "../../secrets/x"), P, undefined, "NoPod"],
  ["no UID", asking("uid", ""), P, undefined, "NoPod"],
  ["no address", at(""), P, undefined, "BadAddresses"],
  ["loopback", at("127.0.0.1"), P, undefined, "BadAddresses"],
  ["link-local", at("fe80::1"), P, undefined, "BadAddresses"],
  ["two of a family", at("10.1.0.5,10.1.0.6"), P, undefined, "BadAddresses"],
  ["three", at("10.1.0.5,fd01::5,10.1.0.6"), P, undefined, "BadAddresses"],
  ["a name", at("web-0"), P, undefined, "BadAddresses"],
  ["no pod", {}, undefined, undefined, "PodNotFound"],
  ["another pod", {}, called({ name: "db" }), undefined, "PodNotFound"],
  ["another namespace", {}, called({ namespace: "b" }), undefined, "PodNotFound"],
  ["recreated pod", {}, called({ uid: "new" }), undefined, "PodUidMismatch"],
  ["other node", {}, pod({ nodeName: "node-b" }), undefined, "PodOnOtherNode"],
  ["deleting", {}, called({ deletionTimestamp: "2026-01-01T00:00:00Z" }), undefined, "PodDeleted"],
  ["unknown phase", {}, pod({}, { phase: "Unknown" }), NODE, "PodFinished"],
  ["host network", {}, pod({ hostNetwork: true }), undefined, "HostNetwork"],
  ["other address", at("10.1.0.6"), P, NODE, "AddressMismatch"],
  ["no status, in the CIDR", {}, young, NODE, "allow"],
  ["no status, both in CIDRs", at("10.1.0.5,fd01::5"), young, NODE, "allow"],
  ["no status, no node", {}, young, undefined, "wait"],
  ["no status, another node", {}, young, { ...NODE, name: "node-b" }, "wait"],
  ["no status, no CIDRs", {}, young, { ...NODE, podCidrs: [] }, "wait"],
  ["no status, other CIDR", at("10.2.0.5"), young, NODE, "wait or AddressNotOfNode"],
  ["no status, one in it", at("10.1.0.5,fd02::5"), young, NODE, "wait or AddressNotOfNode"],
  ["no status, the pods' gateway", at("10.1.0.1"), young, NODE, "wait or AddressNotOfNode"],
  ["no status, the node's own", at("10.1.0.250"), young, NODE, "AddressTaken"],
  ["a static pod's mirror", {}, mirror, undefined, "NoServiceAccount"],
  ["no service account", {}, pod({ serviceAccountName: "" }), undefined, "NoServiceAccount"],
  [
    "in its status, the node's own",
    at("10.1.0.250"),
    liar("10.1.0.250"),
    NODE,
    "AddressTaken",
  ],
  ["in its status, other CIDR, unused", at("10.2.0.5"), liar("10.2.0.5"), NODE, "allow"],
];

Deno.test("who may have a certificate for which pod", () => {
  for (const [name, change, object, node, expected] of CASES) {
    const found = object === undefined ? undefined : readPod(object);
    const verdict = authorise({ ...LEGAL, ...change }, found, around(node), SETTINGS);
    strictEqual(short(verdict), expected, name);
  }
});

Deno.test("the certificate is for what the API server knows, for no longer than is set", () => {
  const lifetime = (expirationSeconds?: number) => {
    const verdict = authorise({ ...LEGAL, expirationSeconds }, readPod(P), around(), SETTINGS);
    return "allow" in verdict ? verdict.ttlSeconds : NaN;
  };
  deepStrictEqual([undefined, 600, 3600, 315_360_000].map(lifetime), [3600, 600, 3600, 3600]);
  deepStrictEqual(authorise(LEGAL, readPod(P), around(), SETTINGS), {
    allow: {
      uid: POD_UID,
      namespace: "shop",
      name: "web-0",
      serviceAccount: "web",
      addresses: ["10.1.0.5"],
    },
    ttlSeconds: 3600,
  });
});

Deno.test("a stolen kubelet says what it likes of its pods' addresses, and gets none but its own", () => {
  const verdict = (ip: string, usesRanges: boolean, owners: Record<string, string> = {}) =>
    short(
      authorise(
        { ...LEGAL, ...at(ip) },
        readPod(liar(ip)),
        around(NODE, usesRanges, owners),
        SETTINGS,
      ),
    );
  strictEqual(verdict("10.1.0.5", true), "allow");
  strictEqual(verdict("10.2.0.5", true), "wait or AddressNotOfNode", "another node's range");
  strictEqual(verdict("8.8.8.8", true), "wait or AddressNotOfNode", "anything else");
  strictEqual(verdict("10.1.0.1", true), "wait or AddressNotOfNode", "the pods' gateway");
  strictEqual(verdict("10.1.0.5", false, { "10.1.0.5": "node-b" }), "wait or AddressTaken");
  strictEqual(verdict("10.1.0.5", true, { "10.1.0.5": "node-a" }), "wait or AddressTaken");
  const thief = { "10.1.0.5": "node-b" };
  strictEqual(verdict("10.1.0.5", true, thief), "allow", "it is this node's, whatever others say");
});

Deno.test("an address in the podCIDRs of two Nodes is nobody's, whose ever the pod is and whatever others say", () => {
  const verdict = (node: NodeFacts | undefined, usesRanges: boolean, of: unknown = P) =>
    authorise(LEGAL, readPod(of), around(node, usesRanges, {}, ["node-b"]), SETTINGS);
  const contested = verdict(NODE, true);
  strictEqual(short(contested), "RangeContested");
  ok("deny" in contested);
  match(contested.message, /10\.1\.0\.5 is in those of node-a and of node-b/);
  strictEqual(short(verdict(NODE, true, young)), "RangeContested");
  strictEqual(short(verdict(NODE, false, young)), "wait", "no status, so the range would decide");
  strictEqual(short(verdict(NODE, false)), "allow", "podCIDRs are not in use");
  for (const without of [undefined, { ...NODE, podCidrs: [] }]) {
    strictEqual(short(verdict(without, true)), "wait or AddressNotOfNode", "another node's range");
    strictEqual(short(verdict(without, false)), "allow");
    strictEqual(short(authorise(LEGAL, readPod(P), around(without, true), SETTINGS)), "allow");
  }
});

Deno.test("with node A's token exactly the certificates of A's pods can be had", () => {
  const nodes = ["node-a", "node-b", "node-c", ""];
  const pods = Array.from({ length: 40 }, (_, i) =>
    readPod(pod(
      { nodeName: nodes[i % 4], hostNetwork: i % 5 === 0 },
      { phase: i % 7 === 0 ? "Failed" : "Running", podIPs: [{ ip: `10.1.0.${i + 2}` }] },
      { name: `p-${i}`, uid: `u-${i}` },
    )));
  const allowed = pods.filter((one) => {
    const annotations = {
      "kube-gateway.io/pod-namespace": "shop",
      "kube-gateway.io/pod-name": one.name,
      "kube-gateway.io/pod-uid": one.uid,
      "kube-gateway.io/pod-addresses": one.addresses.join(),
    };
    return "allow" in authorise({ ...LEGAL, annotations }, one, around(NODE), SETTINGS);
  });
  const expected = pods.filter(({ nodeName, hostNetwork, phase }) =>
    nodeName === "node-a" && !hostNetwork && phase === "Running"
  );
  ok(expected.length > 3);
  deepStrictEqual(allowed, expected);
});

Deno.test("a request that is too long is refused by its length, whatever else it says", () => {
  const long = { ...LEGAL, requestLength: 1_900_000 };
  const verdict = authorise(long, readPod(P), around(), SETTINGS);
  ok("deny" in verdict);
  strictEqual(verdict.deny, "BadRequest");
  match(verdict.message, /spec\.request has 1900000 characters, at most \d+ are read$/);
});

Deno.test("hostile texts are bounded and printable in what is answered", () => {
  const long = "x\n".repeat(10_000);
  const changes = [{ username: long }, { signerName: long }, { usages: [long] }, at(long)];
  for (const change of [...changes, asking("name", long)]) {
    const verdict = authorise({ ...LEGAL, ...change }, readPod(P), around(), SETTINGS);
    ok("deny" in verdict);
    match(verdict.message, /^[ -~…]{10,500}$/);
  }
  for (const [code, text] of Object.entries(DENIALS)) match(`${code} ${text}`, /^[A-Z]\w+ [ -~]+$/);
});

Deno.test("objects are read as the API server sends them, and nothing else is", async () => {
  const body = await requestBody();
  const object = {
    ...body,
    metadata: {
      ...body.metadata,
      name: "x",
      uid: "u",
      resourceVersion: "1",
      creationTimestamp: "2026-01-01T00:00:00Z",
    },
    status: { conditions: null, certificate: null },
  };
  strictEqual(readCsr(object).state, "pending");
  ok(readCsr(object).request.length > 100);
  for (
    const [status, state] of [
      [{ conditions: [{ type: "Approved" }] }, "approved"],
      [{ conditions: [{ type: "Approved" }, { type: "Failed" }] }, "failed"],
      [{ conditions: [{ type: "Denied" }] }, "denied"],
      [{ conditions: [{ type: "Approved" }], certificate: "eA==" }, "issued"],
    ] as const
  ) strictEqual(readCsr({ ...object, status }).state, state);
  for (const request of ["", "*", btoa("x"), "A".repeat(100_000)]) {
    strictEqual(readCsr({ ...object, spec: { ...body.spec, request } }).request.length, 0);
  }
  const metadata = { name: "n" };
  deepStrictEqual(readNode({ metadata, spec: { podCIDR: "10.0.0.0/24" } }).podCidrs, [
    "10.0.0.0/24",
  ]);
  const addresses = [
    { type: "Hostname", address: "n" },
    { type: "InternalIP", address: "10.0.0.9" },
  ];
  const node = readNode({ metadata, spec: null, status: { addresses } });
  deepStrictEqual(node, { name: "n", zone: undefined, podCidrs: [], addresses: ["10.0.0.9"] });
});

function short(verdict: Verdict): string {
  if ("allow" in verdict) return "allow";
  if ("deny" in verdict) return verdict.deny;
  return verdict.orDeny === undefined ? "wait" : `wait or ${verdict.orDeny}`;
}

function pod(
  spec: Record<string, unknown> = {},
  status: Record<string, unknown> = {},
  metadata: Record<string, unknown> = {},
): object {
  return podObject({ spec, status, metadata });
}
