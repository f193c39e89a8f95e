/**
 * The promise: where it is not known whether there is a peer, connections are refused, never sent
 * in clear: a full map, a Service, a namespace or a node's registry beyond its bound, a list that
 * was never read. It costs no other tenant anything.
 */
import assert from "node:assert/strict";
import { parseAddress } from "../src/addresses.ts";
import { TUNNEL_PORT } from "../src/constants.ts";
import { CAPACITY, type MapName } from "../src/kernel/maps.ts";
import { until } from "./lab/delay.ts";
import { mapHas, pinnedMap } from "./lab/kernel.ts";
import { Lab } from "./lab/lab.ts";
import { OUTSIDE } from "./lab/network.ts";
import type { Pod } from "./lab/pod.ts";
import { openScene } from "./lab/scene.ts";
import { writeService, writeServices } from "./lab/service.ts";

const PORT = 9000;
const CANARY = "canary that must not be read on the wire";

Deno.test("what cannot be known whole is refused, and costs no other tenant anything", async (t) => {
  await using lab = await openScene([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "api", node: "node-b", annotation: "true" },
    { name: "greedy", node: "node-b", annotation: "true", namespace: "greedy" },
    { name: "plain", node: "node-b" },
  ]);
  const [web, api, greedy, plain] = [...lab.pods];
  assert(web && api && greedy && plain && plain.ipv4);
  for (const pod of [api, greedy, plain]) await pod.serve("hello", PORT);

  await t.step("the detector sees clear text where it is allowed", async () => {
    assert.deepEqual(await seen(lab, web, plain.ipv4 ?? "", PORT), "in clear");
    assert.deepEqual(await seen(lab, web, api.ipv4 ?? "", PORT), "encrypted");
    assert.deepEqual(await seen(lab, web, "10.98.0.99", 80), "in clear", "nobody's address");
  });

  await t.step("a namespace beyond its share is refused its own Services", async () => {
    // 8,192 frontends are a namespace's share: eight of these.
    const ports = Object.fromEntries(Array.from({ length: 1_000 }, (_, port) => [port + 1, PORT]));
    const services = Array.from({ length: 12 }, (_, index) => ({
      name: `greedy-${index + 10}`,
      namespace: "greedy",
      clusterIps: [`10.98.0.${index + 10}`],
      ports,
      endpoints: [{ pod: greedy }],
    }));
    await writeServices(lab, "greedy.json", services);
    await untilProblem(lab, /^greedy\/greedy-21$/);
    await writeService(lab, serviceOf("late", "10.96.0.10", api));
    await untilSeen(lab, web, "10.96.0.10", 80, "encrypted");
    assert.equal(await seen(lab, web, "10.98.0.17", 1_000), "encrypted");
    for (const host of ["10.98.0.18", "10.98.0.21"]) {
      for (const port of [1, 1_000]) assert.equal(await seen(lab, web, host, port), "refused");
    }
    const named = (await problems(lab)).filter((where) => where.startsWith("greedy/"));
    assert.deepEqual(named.sort(), [18, 19, 20, 21].map((index) => `greedy/greedy-${index}`));
    await writeServices(lab, "greedy.json", services.slice(2));
    await untilSeen(lab, web, "10.98.0.18", 1, "encrypted");
    await lab.remove("greedy.json");
    await untilNoProblem(lab);
    await untilSeen(lab, web, "10.98.0.21", 1, "in clear", "nobody's address any more");
  });

  await t.step("a Service with too many endpoints is refused", async () => {
    await lab.write("wide.json", wideService("10.98.0.30", api.ipv4 ?? "", 33_000));
    await untilProblem(lab, /^wide\/wide$/);
    assert.equal(await seen(lab, web, "10.98.0.30", 80), "refused");
    await writeService(lab, serviceOf("later", "10.96.0.11", api));
    await untilSeen(lab, web, "10.96.0.11", 80, "encrypted");
    await lab.write("wide.json", wideService("10.98.0.30", api.ipv4 ?? "", 1));
    await untilNoProblem(lab);
    await untilSeen(lab, web, "10.98.0.30", 80, "encrypted");
    await lab.remove("wide.json");
  });

  await t.step("a node's registry beyond its bound costs that node only", async () => {
    await lab.write("registry/node-x.json", registryOf("node-x", 4_200));
    await untilProblem(lab, /^registry of node-x$/);
    assert.equal(await seen(lab, web, addressOf(4_199), PORT), "refused");
    const late = await lab.addPod({ name: "late", node: "node-b", annotation: "true" });
    await late.serve("hello", PORT);
    const { stateDirectory } = lab.agent("node-a").paths; // the status lists a thousand peers only
    const isPeer = () => mapHas(stateDirectory, "peers", parseAddress(late.ipv4 ?? ""));
    await until(isPeer, 30_000, () => lab.agent("node-b").logTail());
    assert.equal(await seen(lab, web, late.ipv4 ?? "", PORT), "encrypted");
    assert.equal(await seen(lab, web, plain.ipv4 ?? "", PORT), "in clear");
    await lab.remove("registry/node-x.json");
    await untilNoProblem(lab);
    await untilSeen(lab, web, addressOf(4_199), PORT, "in clear", "nobody's address any more");
  });

  await t.step("a link-local address is in no registry", async () => {
    for (const pod of [api, plain]) {
      const { stdout } = await pod.run(["ip", "-6", "-o", "addr", "show", "scope", "link"]);
      const address = /inet6 (fe80[^/]+)/.exec(stdout)?.[1] ?? "";
      assert.equal(await seen(lab, web, `${address}%eth0`, PORT), "refused");
    }
  });

  for (const name of ["frontends", "backends", "peers"] as const) {
    await t.step(`the map of ${name} is full`, async () => {
      // The agent's audit empties it sooner or later, and then not again for a while.
      let what: Seen | undefined;
      let [keys, service]: [Uint8Array<ArrayBuffer>[], string] = [[], ""];
      let pod = api;
      for (let attempt = 1; attempt <= 5 && what !== "refused"; attempt++) {
        keys = fill(lab, name);
        service = `10.96.${attempt}.${name.length}`;
        await writeService(lab, serviceOf(`${name}-${attempt}`, service, api));
        const podName = `new-${name}-${attempt}`;
        pod = await lab.addPod({ name: podName, node: "node-b", annotation: "true" });
        await pod.serve("hello", PORT);
        await lab.waitEnrolled(pod, 30_000);
        const [host, port] = name === "peers"
          ? [pod.ipv4 ?? "", PORT] as const
          : [service, 80] as const;
        what = await seen(lab, web, host, port);
        assert.notEqual(what, "in clear");
        const where = name === "peers" ? host : `default/${name}-${attempt}`;
        if (what === "refused") assert((await problems(lab)).includes(where), where);
      }
      assert.equal(what, "refused");
      assert.equal(await seen(lab, web, api.ipv4 ?? "", PORT), "encrypted", "who was there before");
      assert.equal(await seen(lab, web, plain.ipv4 ?? "", PORT), "in clear");
      empty(lab, name, keys);
      await writeService(lab, serviceOf(`next-${name}`, `10.96.9.${name.length}`, api));
      await untilNoProblem(lab);
      await untilSeen(lab, web, service, 80, "encrypted");
      await untilSeen(lab, web, pod.ipv4 ?? "", PORT, "encrypted");
    });
  }
});

Deno.test("while a list has never been read, connections inside the cluster are refused, but to known peers", async () => {
  await using lab = await Lab.open();
  await lab.write("broken.yaml", "kind: [");
  await lab.addPods([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "api", node: "node-b", annotation: "true" },
    { name: "plain", node: "node-b" },
  ]);
  const [web, api, plain] = [...lab.pods];
  assert(web && api && plain);
  for (const place of [api, plain, lab.outside]) await place.serve("hello", PORT);
  await Promise.all(lab.nodes.map(({ name }) => lab.startAgent(name)));
  await untilProblem(lab, /^cluster$/);
  await untilSeen(lab, web, api.ipv4 ?? "", PORT, "encrypted or refused");
  for (const host of plain.addresses) assert.equal(await seen(lab, web, host, PORT), "refused");
  assert.equal(await seen(lab, web, OUTSIDE.ipv4, PORT), "in clear", "outside the cluster");
  await lab.remove("broken.yaml");
  await untilNoProblem(lab);
  await untilSeen(lab, web, api.ipv4 ?? "", PORT, "encrypted");
  for (const host of plain.addresses) {
    await untilSeen(lab, web, host, PORT, "in clear");
  }
});

type Seen = "in clear" | "encrypted" | "refused" | "reset";

/** What became of a connection, by the packets on the pod's own link. */
async function seen(lab: Lab, pod: Pod, host: string, port: number): Promise<Seen> {
  const capture = await lab.captureVeth(pod, { filter: "tcp" });
  const options = ["--text", CANARY, "--timeout", "1"];
  const { code, result } = await pod.connect("who", host, port, ...options);
  const { openedPorts, contains, dropped } = await capture.stop();
  assert.equal(dropped, 0);
  openedPorts.delete(TUNNEL_PORT);
  if (openedPorts.size > 0 || contains(CANARY) > 0) return "in clear";
  if (code === 0) return "encrypted";
  return result.errno === "ECONNREFUSED" ? "refused" : "reset";
}

async function untilSeen(
  lab: Lab,
  pod: Pod,
  host: string,
  port: number,
  wanted: Seen | "encrypted or refused",
  why = "",
): Promise<void> {
  let last: Seen | undefined;
  await until(
    async () => {
      last = await seen(lab, pod, host, port);
      return wanted.includes(last);
    },
    30_000,
    () => `${lab.agent("node-a").logTail()}\n${host}:${port} is ${last}, not ${wanted} ${why}`,
  );
}

/** What the client's agent has a problem with. */
async function problems(lab: Lab): Promise<string[]> {
  return (await lab.agent("node-a").status()).problems.map(({ where }) => where);
}

async function untilProblem(lab: Lab, where: RegExp): Promise<void> {
  let last: string[] = [];
  await until(
    async () => (last = await problems(lab)).some((each) => where.test(each)),
    60_000,
    () => `${lab.agent("node-a").logTail()}\nproblems with ${last.slice(0, 10)}, not ${where}`,
  );
}

async function untilNoProblem(lab: Lab): Promise<void> {
  let last: readonly object[] = [];
  await until(
    async () => (last = (await lab.agent("node-a").status()).problems).length === 0,
    60_000,
    () => `${lab.agent("node-a").logTail()}\nproblems: ${JSON.stringify(last.slice(0, 5))}`,
  );
}

function serviceOf(name: string, address: string, pod: Pod) {
  return { name, clusterIps: [address], ports: { 80: PORT }, endpoints: [{ pod }] };
}

/** One port, and so many endpoints: a peer, and nobody. */
function wideService(address: string, first: string, endpoints: number): string {
  const [namespace, name] = ["wide", "wide"];
  const slices = Array.from({ length: Math.ceil(endpoints / 1_000) }, (_, slice) => ({
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: `${name}-${slice}`,
      namespace,
      labels: { "kubernetes.io/service-name": name },
    },
    addressType: "IPv4",
    endpoints: Array.from(
      { length: Math.min(1_000, endpoints - slice * 1_000) },
      (_, index) => ({
        addresses: [slice + index === 0 ? first : addressOf(slice * 1_000 + index)],
      }),
    ),
    ports: [{ name: "http", port: PORT }],
  }));
  const service = {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace },
    spec: { clusterIP: address, clusterIPs: [address], ports: [{ name: "http", port: 80 }] },
  };
  return JSON.stringify({ apiVersion: "v1", kind: "List", items: [service, ...slices] });
}

function addressOf(pod: number): string {
  return `10.200.${pod >> 8}.${pod & 255}`;
}

function registryOf(node: string, pods: number): string {
  const items = Array.from({ length: pods / 100 }, (_, slice) => {
    const uids = Array.from({ length: 100 }, () => crypto.randomUUID());
    const identity = "spiffe://cluster.local/ns/x/sa/x";
    return {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: {
        name: `registry-${node}-ipv4-${String(slice).padStart(5, "0")}`,
        namespace: "kube-gateway",
        labels: { "kube-gateway.io/registry-node": node },
        annotations: {
          "kube-gateway.io/identities": JSON.stringify(
            Object.fromEntries(uids.map((uid) => [uid, identity])),
          ),
        },
      },
      addressType: "IPv4",
      endpoints: uids.map((uid, index) => ({
        addresses: [addressOf(slice * 100 + index)],
        conditions: { ready: true },
        nodeName: node,
        targetRef: { kind: "Pod", namespace: "x", name: "x", uid },
      })),
      ports: [{ name: "tunnel", port: TUNNEL_PORT, protocol: "TCP" }],
    };
  });
  return JSON.stringify({ apiVersion: "v1", kind: "List", items });
}

/**
 * Fills a map of the client's node with what nobody knows; returns the last keys of it: whoever
 * removes them makes room, and so does an audit that has removed them before.
 */
function fill(lab: Lab, name: keyof typeof CAPACITY & MapName): Uint8Array<ArrayBuffer>[] {
  using map = pinnedMap(lab.agent("node-a").paths.stateDirectory, name);
  const last: Uint8Array<ArrayBuffer>[] = [];
  const value = new Uint8Array(map.valueSize);
  const key = new Uint8Array(map.keySize);
  key[0] = 0x20;
  // More than fit: the agent's audit takes some out meanwhile.
  for (let number = 0; number < 8 * CAPACITY[name]; number++) {
    new DataView(key.buffer).setUint32(key.length - 4, 0x8000_0000 + number);
    try {
      map.set(key, value);
    } catch {
      return last;
    }
    last[number % 100] = key.slice();
  }
  throw new Error(`${name} is not full`);
}

function empty(lab: Lab, name: MapName, keys: readonly Uint8Array<ArrayBuffer>[]): void {
  using map = pinnedMap(lab.agent("node-a").paths.stateDirectory, name);
  for (const key of keys) map.delete(key);
}
