import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import type { ClusterObjects } from "../../cluster/cluster.ts";
import type { Pod } from "../../cluster/objects.ts";
import type { RegistryPart } from "../../cluster/registry.ts";
import { RegistryContradictions } from "./registry_contradictions.ts";

type Evidence = Pick<ClusterObjects, "nodes" | "pods" | "services">;

const NOTHING: Evidence = { nodes: new Map(), pods: [], services: new Map() };

const part = (node: string, ...addresses: string[]): RegistryPart => ({
  slice: `kube-gateway/registry-${node}-ipv4-0`,
  node,
  peers: addresses.map((address) => ({
    address,
    identity: "spiffe://td/ns/x/sa/x",
    uid: `u-${address}`,
    pod: "x/x",
    node,
    slice: `kube-gateway/registry-${node}-ipv4-0`,
    ready: true,
  })),
  refused: [],
});

Deno.test("what an earlier agent has believed is believed without its Node, too", () => {
  const remembered = { ...part("gone", "10.1.9.5"), wasBelieved: true };
  const judge = new RegistryContradictions("n9");
  const parts = [part("n1", "10.1.1.5"), part("n2", "10.1.2.5"), remembered];
  const believed = judge.apply(new Map(parts.map((each) => [each.slice, each])), {
    ...NOTHING,
    nodes: nodes({ n1: ["10.1.1.0/24"], n2: ["10.1.2.0/24"] }),
  });
  deepStrictEqual(believed.get(remembered.slice)?.peers.length, 1);
});

/** `node` → its podCIDRs. */
const nodes = (cidrs: Record<string, string[]>): Evidence["nodes"] =>
  new Map(
    Object.entries(cidrs).map(([name, podCidrs]) => [name, {
      name,
      zone: undefined,
      podCidrs,
      addresses: [],
    }]),
  );

const service = (...clusterIps: string[]): Evidence["services"] =>
  new Map([["kube-system/dns", {
    namespace: "kube-system",
    name: "dns",
    created: 0,
    clusterIps,
    ports: [],
    affinitySeconds: 0,
    localOnly: false,
  }]]);

const pod = (change: Partial<Pod>): Pod => ({
  uid: "u",
  namespace: "shop",
  name: "web",
  nodeName: "me",
  serviceAccount: "web",
  annotations: {},
  addresses: ["10.0.0.5"],
  hostNetwork: false,
  phase: "Running",
  deleting: false,
  ...change,
});

/** The addresses that are believed, by node, and what is said of the others. */
function judge(parts: readonly RegistryPart[], evidence: Partial<Evidence>) {
  const contradictions = new RegistryContradictions("me");
  const believed = contradictions.apply(new Map(parts.map((one) => [one.slice, one])), {
    ...NOTHING,
    ...evidence,
  });
  return {
    believed: [...believed.values()].flatMap(({ peers }) => peers.map(({ address }) => address)),
    said: contradictions.list().map(({ message }) => message),
    isSame: [...believed.values()].every((one, index) => one === parts[index]),
  };
}

const RANGES = nodes({ me: ["10.0.0.0/24"], b: ["10.0.1.0/24"], c: ["10.0.2.0/24"] });
const HONEST = [part("me", "10.0.0.9"), part("b", "10.0.1.9"), part("c", "10.0.2.9")];

Deno.test("what nobody contradicts is believed, and is the same object", () => {
  const { believed, said, isSame } = judge(HONEST, {
    nodes: RANGES,
    services: service("10.96.0.1"),
  });
  deepStrictEqual(believed, ["10.0.0.9", "10.0.1.9", "10.0.2.9"]);
  deepStrictEqual(said, []);
  strictEqual(isSame, true);
});

Deno.test("where podCIDRs are in use, a node speaks for its own addresses only", () => {
  const thief = part("c", "10.0.2.9", "10.0.1.9", "192.0.2.1", "8.8.8.8");
  const { believed, said } = judge([...HONEST.slice(0, 2), thief], { nodes: RANGES });
  deepStrictEqual(believed, ["10.0.0.9", "10.0.1.9", "10.0.2.9"]);
  match(said.join(), /node c names 10\.0\.1\.9 \(and 2 others\), which is none of its podCIDRs/);
});

Deno.test("where they are not, pods' addresses say nothing of their node", () => {
  const pooled = [part("me", "172.16.0.1"), part("b", "172.16.0.2"), part("c", "172.16.0.3")];
  strictEqual(judge(pooled, { nodes: RANGES }).isSame, true);
  strictEqual(judge(pooled, {}).isSame, true);
});

Deno.test("nobody names a Service's address", () => {
  const thief = part("c", "10.96.0.10", "172.16.0.3");
  const { believed, said } = judge([thief], { services: service("10.96.0.10") });
  deepStrictEqual(believed, ["172.16.0.3"]);
  match(said.join(), /10\.96\.0\.10, which is that of Service kube-system\/dns/);
});

Deno.test("nobody names the address of a pod that is known to run elsewhere, whatever is said of it", () => {
  const thief = part("c", "10.0.0.5");
  deepStrictEqual(judge([thief], { pods: [pod({})] }).believed, []);
  for (const change of [{ deleting: true }, { phase: "Succeeded" }, { hostNetwork: true }]) {
    deepStrictEqual(judge([thief], { pods: [pod(change)] }).believed, ["10.0.0.5"], "reused");
  }
  deepStrictEqual(judge([thief], { pods: [pod({ nodeName: "c" })] }).believed, ["10.0.0.5"]);
});

Deno.test("what a part was found to be is found again when the evidence changes, and not otherwise", () => {
  const contradictions = new RegistryContradictions("me");
  const thief = part("c", "10.96.0.10", "10.0.2.9");
  const parts = new Map([thief].map((one) => [one.slice, one]));
  const of = (evidence: Partial<Evidence>) =>
    contradictions.apply(parts, { ...NOTHING, ...evidence }).get(thief.slice);
  strictEqual(of({}), thief);
  const cut = of({ services: service("10.96.0.10") });
  deepStrictEqual(cut?.peers.map(({ address }) => address), ["10.0.2.9"]);
  strictEqual(of({ services: service("10.96.0.10") }), cut);
  strictEqual(of({}), thief);
  strictEqual(contradictions.list().length, 0);
});

Deno.test("what stands in bad entries cuts nobody else off, either", () => {
  const bad = (node: string, ...addresses: string[]): RegistryPart => ({
    ...part(node),
    refused: [{ slice: "x", reason: "no identity", addresses }],
  });
  const thief = bad("c", "10.0.2.7", "10.0.1.7", "8.8.8.8", "10.96.0.10", "10.0.0.5");
  const contradictions = new RegistryContradictions("me");
  const parts = new Map([...HONEST.slice(0, 2), thief].map((one) => [one.slice, one]));
  const believed = contradictions.apply(parts, {
    nodes: RANGES,
    services: service("10.96.0.10"),
    pods: [pod({})],
  });
  deepStrictEqual(believed.get(thief.slice)?.refused[0]?.addresses, ["10.0.2.7"]);
  match(contradictions.list()[0]?.message ?? "", /and \d others/);
});

Deno.test("what has outlived its Node is held against the ranges that the Node had", () => {
  const contradictions = new RegistryContradictions("me");
  const ghost = part("c", "10.0.2.9", "10.0.1.7", "8.8.8.8");
  const parts = new Map([...HONEST.slice(0, 2), ghost].map((one) => [one.slice, one]));
  const of = (ranges: Evidence["nodes"]) => {
    const believed = contradictions.apply(parts, { ...NOTHING, nodes: ranges }).get(ghost.slice);
    return believed?.peers.map(({ address }) => address);
  };
  deepStrictEqual(of(RANGES), ["10.0.2.9"]);
  deepStrictEqual(of(nodes({ me: ["10.0.0.0/24"], b: ["10.0.1.0/24"] })), ["10.0.2.9"], "gone");
  const taken = nodes({ me: ["10.0.0.0/24"], b: ["10.0.1.0/24"], d: ["10.0.2.0/24"] });
  deepStrictEqual(of(taken), ["10.0.2.9"], "another Node has its range now");
});

Deno.test("a stolen kubelet that makes its Node anew with another's range takes no peer from the registry", () => {
  const contradictions = new RegistryContradictions("me");
  const honest = part("b", "10.0.1.9");
  const thief = part("c", "10.0.1.9", "10.0.1.7", "10.0.0.7");
  const parts = new Map([HONEST[0], honest, thief].map((one) => [one?.slice, one] as const));
  const of = (ranges: Evidence["nodes"]) => {
    const believed = contradictions.apply(parts as Map<string, RegistryPart>, {
      ...NOTHING,
      nodes: ranges,
    });
    return [honest, thief].map(({ slice }) =>
      believed.get(slice)?.peers.map(({ address }) => address)
    );
  };
  deepStrictEqual(of(RANGES), [["10.0.1.9"], []]);
  const [me, b, same] = [["10.0.0.0/24"], ["10.0.1.0/24"], ["10.0.1.0/24"]];
  const both = [["10.0.1.9"], ["10.0.1.9", "10.0.1.7"]];
  deepStrictEqual(of(nodes({ me, b, c: same })), both, "the handshake decides");
  deepStrictEqual(of(nodes({ me, c: same })), both, "also while the honest Node is gone");
  deepStrictEqual(of(nodes({ me, c: ["10.0.0.0/23"] })).at(0), ["10.0.1.9"], "or a wider one");
});

Deno.test("of a node that nobody knows nothing is believed where podCIDRs are in use, and all where they are not", () => {
  const known = nodes({ me: ["10.0.0.0/24"], b: ["10.0.1.0/24"] });
  const { believed, said } = judge(HONEST, { nodes: known });
  deepStrictEqual(believed, ["10.0.0.9", "10.0.1.9"]);
  match(said.join(), /node c names 10\.0\.2\.9, which may be anybody's: it has no Node object/);
  const pooled = [part("me", "172.16.0.1"), part("b", "172.16.0.2"), part("c", "172.16.0.3")];
  strictEqual(judge(pooled, { nodes: known }).isSame, true);
  strictEqual(judge(HONEST, {}).isSame, true, "a directory has no Nodes");
});

Deno.test("what the others do not believe of our own pods is known, and we believe it", () => {
  const contradictions = new RegistryContradictions("me");
  const own = part("me", "10.0.0.9", "172.16.0.1", "10.96.0.10");
  const parts = new Map([own, ...HONEST.slice(1)].map((one) => [one.slice, one]));
  const evidence = { ...NOTHING, nodes: RANGES, services: service("10.96.0.10") };
  strictEqual(contradictions.apply(parts, evidence).get(own.slice), own);
  deepStrictEqual([...contradictions.doubted().keys()].sort(), ["10.96.0.10", "172.16.0.1"]);
  deepStrictEqual(contradictions.list(), []);
});
