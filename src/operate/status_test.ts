import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { DENY_LIST } from "../cluster/deny_list.ts";
import type { Peer } from "../cluster/registry.ts";
import { Node } from "../control/pods/node_for_tests.ts";
import type { GuardCount } from "../kernel/guard_counts.ts";
import { agentConnections } from "./connections.ts";
import { agentStatus, type StatusSources } from "./status.ts";
import type { ConnectionReport } from "../relay/messages.ts";
import { NO_TRAFFIC } from "../relay/traffic.ts";

/** What an agent says that has nothing to say, but for what the test gives it. */
function status(change: Partial<StatusSources> = {}) {
  return agentStatus({
    nodeName: "n1",
    trustDomain: "td",
    limit: { connections: 100, problem: undefined },
    objects: undefined,
    desired: undefined,
    enrolments: { list: () => [], problems: () => [] },
    peers: peers([]),
    silence: 0,
    problems: [],
    trustProblem: undefined,
    routing: { frontendCount: 0, problems: () => [] },
    audit: { last: undefined, repairs: new Map() },
    refusals: [],
    report: { pods: new Map(), past: NO_TRAFFIC },
    ...change,
  });
}

function peers(list: readonly Peer[]): StatusSources["peers"] {
  return {
    size: list.length,
    conflicts: () => [],
    contradictions: () => [],
    *[Symbol.iterator]() {
      yield* list;
    },
  };
}

function count(change: Partial<GuardCount>): GuardCount {
  const end = { address: new Uint8Array(16), port: 1 };
  return {
    pod: 1n,
    peer: address(1),
    protocol: "tcp",
    seen: "cgroup",
    packets: 1,
    bytes: 100,
    payloadBytes: 10,
    droppedPackets: 0,
    first: { source: end, destination: end, atMilliseconds: 0 },
    lastMilliseconds: 0,
    ...change,
  };
}

/** 10.0.0.`last` */
function address(last: number): Uint8Array {
  return Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, last);
}

Deno.test("an agent without a fault names none; every part's own problems are named", () => {
  deepStrictEqual(status().problems, []);
  const { problems } = status({
    limit: { connections: 1, problem: "too few descriptors" },
    problems: [{ file: "registry", message: "not written" }, {
      file: "pods.yaml",
      line: 3,
      message: "no name",
    }],
    routing: {
      frontendCount: 0,
      problems: () => [{ where: "registry of n2", message: "full", ranges: [] }],
    },
    enrolments: { list: () => [], problems: () => [{ where: "/cgroup", message: "not held" }] },
    audit: {
      last: { at: 0, parts: 1, findings: [{ where: "shop/web", kind: "link", what: "detached" }] },
      repairs: new Map(),
    },
    trustProblem: "damaged",
  });
  deepStrictEqual(problems.map(({ where, message }) => `${where}: ${message}`), [
    "descriptors: too few descriptors",
    "registry: not written",
    "pods.yaml:3: no name",
    "registry of n2: full",
    "/cgroup: not held",
    "shop/web: detached",
    "trust bundle: damaged",
  ]);
});

Deno.test("an API server that has been silent for two minutes is a problem, and not before", () => {
  deepStrictEqual(status({ silence: 119_999 }).problems, []);
  match(status({ silence: 120_000 }).problems[0]?.message ?? "", /silent for 120 s/);
});

Deno.test("an active pod whose condition is not True says why", async () => {
  const node = new Node();
  await node.step();
  const { wanted, state } = node.enrolment;
  const told = (secured: unknown) => {
    const pods = [{ uid: wanted.uid, secured }];
    const objects = { pods, registry: [], unread: [], endpoints: new Map(), services: new Map() };
    const { enrolments: [pod] } = status({
      objects: { ...objects, denied: { problems: [] } } as unknown as StatusSources["objects"],
      enrolments: { list: () => [node.enrolment], problems: () => [] },
    });
    return pod?.reason;
  };
  strictEqual(state, "active");
  strictEqual(told(undefined), undefined, "in a directory nobody keeps one");
  strictEqual(told({ status: "True", message: "fine" }), undefined);
  strictEqual(told({ status: "False", message: "why" }), "its condition is not True: why");

  node.registered = [...wanted.addresses];
  node.enrolment.want(undefined);
  await node.step();
  strictEqual(node.enrolment.state, "leaving");
  strictEqual(told({ status: "False", message: "why" }), undefined, "as it should be");
});

Deno.test("what the registry says and is not believed is a problem, and a certificate that cannot be renewed", async () => {
  const node = new Node();
  await node.step();
  const renewalProblem = "its certificate cannot be renewed: denied";
  Object.defineProperty(node.enrolment, "renewalProblem", { value: renewalProblem });
  const refused = [{ slice: "kube-gateway/registry-n2-ipv4-0", reason: "10.0.0.9 is a Node's" }];
  const objects = {
    pods: [],
    registry: [{ refused: [] }, { refused }],
    unread: [{ name: "nodes" }],
    endpoints: new Map(),
    services: new Map(),
    denied: { problems: ["pods: no UID"] },
  };
  const { problems, unreadLists } = status({
    objects: objects as unknown as StatusSources["objects"],
    enrolments: { list: () => [node.enrolment], problems: () => [] },
  });
  deepStrictEqual(problems.map(({ where, message }) => `${where}: ${message}`), [
    `${DENY_LIST}: pods: no UID`,
    `shop/web: ${renewalProblem}`,
    "kube-gateway/registry-n2-ipv4-0: 10.0.0.9 is a Node's",
  ]);
  deepStrictEqual(unreadLists, ["nodes"]);
});

Deno.test("all peers are counted, the first thousand listed", () => {
  const list = Array.from({ length: 1_001 }, (_, index) => ({
    address: `10.0.${index >> 8}.${index & 255}`,
    identity: "spiffe://td/ns/a/sa/b",
    uid: `${index}`,
    pod: "a/b",
    node: "n2",
    slice: "kube-gateway/registry-n2-ipv4-0",
    ready: true,
  }));
  const { peers: listed, peerCount } = status({ peers: peers(list) });
  deepStrictEqual([listed.length, peerCount], [1_000, 1_001]);
  strictEqual(status({ peers: peers(list.slice(0, 1_000)) }).peers.length, 1_000);
});

Deno.test("plaintext: TCP only, what two have seen once, those that got most first, ten of them", async () => {
  const node = new Node();
  await node.step();
  const others = Array.from(
    { length: 11 },
    (_, index) => count({ peer: address(10 + index), payloadBytes: 1 }),
  );
  await node.enrolment.inspect([
    ...others,
    count({ packets: 3, payloadBytes: 30 }),
    count({ packets: 5, payloadBytes: 50, seen: "device" }),
    count({ packets: 2, payloadBytes: 900, protocol: "udp", peer: undefined }),
    count({ packets: 6, payloadBytes: 60, peer: undefined }),
    count({ packets: 7, payloadBytes: 70, peer: undefined, seen: "device" }),
    count({ packets: 4, payloadBytes: 40, peer: address(2), seen: "device" }),
    count({ packets: 1, payloadBytes: 10, peer: address(2) }),
  ]);
  const list = () => [node.enrolment];
  const [enrolment] = status({ enrolments: { list, problems: () => [] } }).enrolments;
  const plaintext = enrolment?.plaintext;
  deepStrictEqual([plaintext?.packets, plaintext?.payloadBytes], [
    11 + 7 + 5 + 4,
    11 + 70 + 50 + 40,
  ]);
  deepStrictEqual(
    plaintext?.peers.map(({ peer, payloadBytes }) => `${peer} ${payloadBytes}`).slice(0, 3),
    ["other peers 70", "10.0.0.1 50", "10.0.0.2 40"],
  );
  strictEqual(plaintext?.peers.length, 10);
});

Deno.test("a pod that is not active has no counts; why it is not is said", () => {
  const node = new Node();
  const list = () => [node.enrolment];
  const [enrolment] = status({ enrolments: { list, problems: () => [] } }).enrolments;
  deepStrictEqual([enrolment?.pod, enrolment?.state], ["shop/web", "waiting"]);
  match(enrolment?.reason ?? "", /cgroup/);
  deepStrictEqual([enrolment?.plaintext, enrolment?.olderConnections], [undefined, undefined]);
});

Deno.test("connections: the longest first, with the peer's name where there is one", () => {
  const made = [1, 3, 2].map((milliseconds) => (
    { milliseconds, peer: `10.0.0.${milliseconds}` } as ConnectionReport
  ));
  const podAt = (address: string | undefined) => address === "10.0.0.3" ? "shop/db" : undefined;
  const { connections, count } = agentConnections("n1", made, 7, podAt);
  deepStrictEqual(connections.map(({ milliseconds }) => milliseconds), [3, 2, 1]);
  deepStrictEqual(connections.map(({ peerPod }) => peerPod), ["shop/db", undefined, undefined]);
  strictEqual(count, 7);
});
