/**
 * The promise: a connection to a Service goes to one of its endpoints, encrypted where that is
 * enrolled.
 */
import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { until } from "./lab/delay.ts";
import type { Lab } from "./lab/lab.ts";
import type { Pod } from "./lab/pod.ts";
import { openScene } from "./lab/scene.ts";
import { type LabService, writeService, writeServices } from "./lab/service.ts";

const PORT = 9000;
const CLUSTER_IPS = ["10.96.0.20", "fd96::20"];

Deno.test("a Service with enrolled endpoints is reached through tunnels, at each of its addresses and ports", async (t) => {
  await using lab = await openScene([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "api-1", node: "node-b", annotation: "true" },
    { name: "api-2", node: "node-b", annotation: "true" },
  ]);
  const [web, one, two] = [lab.pod("web"), lab.pod("api-1"), lab.pod("api-2")];
  for (const pod of [one, two]) {
    await pod.serve("peer", PORT);
    await pod.serve("peer", PORT + 1);
  }
  await publish(lab, {
    ports: { 80: PORT, 81: PORT + 1 },
    endpoints: [{ pod: one }, { pod: two }],
  });

  await t.step("the server sees the client's address, the client the Service's", async () => {
    const capture = await lab.captureVeth(web);
    for (const [index, host] of CLUSTER_IPS.entries()) {
      for (const [port, target] of [[80, PORT], [81, PORT + 1]] as const) {
        const seen = new Set<string>();
        for (let count = 0; count < 12; count++) {
          const { result } = await web.connect("peer", host, port);
          assert.deepEqual(result.getpeername, [host, port]);
          const server = result.server as {
            accept: [string, number];
            getsockname: [string, number];
          };
          assert.equal(server.accept[0].replace("::ffff:", ""), web.addresses[index]);
          assert.equal(server.getsockname[1], target);
          seen.add(server.getsockname[0].replace("::ffff:", ""));
        }
        assert.deepEqual([...seen].sort(), [one.addresses[index], two.addresses[index]].sort());
      }
    }
    assert.ok((await capture.stop()).isOnlyPort(TUNNEL_PORT));
  });

  await t.step("a port that the Service does not have is left alone", async () => {
    const { result } = await web.connect("peer", CLUSTER_IPS[0]!, 82, "--timeout", "1");
    assert.equal(result.event, "error");
    const { traffic } = await lab.agent("node-a").enrolment(web);
    assert.equal(traffic?.streams, 48);
  });

  await t.step("what is terminating but serves is used when nothing is ready", async () => {
    await publish(lab, {
      endpoints: [
        { pod: one, ready: false, serving: true, terminating: true },
        { pod: two, ready: false, serving: false },
      ],
    });
    await untilServedBy(lab, web, [one]);
  });

  await t.step("an endpoint that refuses is passed over while no byte has moved", async () => {
    const three = await lab.addPod({ name: "api-3", node: "node-b", annotation: "true" });
    await lab.waitEnrolled(three);
    await publish(lab, { endpoints: [{ pod: three }, { pod: two }] });
    await untilServedBy(lab, web, [two]); // nothing listens in the third
    const { traffic } = await lab.agent("node-a").enrolment(web);
    assert.ok(traffic !== undefined && traffic.retries > 0);
    await three.remove();
  });

  await t.step("a client stays with its endpoint where the Service is sticky", async () => {
    const sticky = (timeoutSeconds: number) =>
      publish(lab, {
        endpoints: [{ pod: one }, { pod: two }],
        spec: {
          sessionAffinity: "ClientIP",
          sessionAffinityConfig: { clientIP: { timeoutSeconds } },
        },
      });
    await sticky(600);
    const first = new Set<string>();
    for (let count = 0; count < 20; count++) first.add(await servedBy(web));
    assert.equal(first.size, 1);
    await sticky(1);
    const chosen = new Set<string>();
    await until(
      async () => {
        await new Promise((resolve) => setTimeout(resolve, 1_100));
        chosen.add(await servedBy(web));
        return chosen.size === 2;
      },
      60_000,
      () => `always ${[...chosen]}`,
    );
  });
});

Deno.test("endpoints are chosen as kube-proxy would: of this node, of this zone", async (t) => {
  await using lab = await openScene([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "near", node: "node-a", annotation: "true" },
    { name: "far", node: "node-b", annotation: "true" },
  ]);
  const [web, near, far] = [lab.pod("web"), lab.pod("near"), lab.pod("far")];
  for (const pod of [near, far]) await pod.serve("peer", PORT);
  const endpoints = [{ pod: near }, { pod: far }];

  await t.step("both without a wish", async () => {
    await publish(lab, { endpoints });
    await untilServedBy(lab, web, [near, far]);
  });
  await t.step("internalTrafficPolicy Local", async () => {
    await publish(lab, { endpoints, spec: { internalTrafficPolicy: "Local" } });
    await untilServedBy(lab, web, [near]);
  });
  await t.step("topology hints", async () => {
    const labels = { "topology.kubernetes.io/zone": "east" };
    await lab.write(
      "node.json",
      JSON.stringify({ apiVersion: "v1", kind: "Node", metadata: { name: "node-a", labels } }),
    );
    await publish(lab, {
      endpoints: [{ pod: near, zones: ["west"] }, { pod: far, zones: ["east"] }],
    });
    await untilServedBy(lab, web, [far]);
  });
});

Deno.test("an endpoint that is not enrolled is reached in clear, and not at all from a strict pod", async (t) => {
  await using lab = await openScene([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "api", node: "node-b", annotation: "true" },
    { name: "plain", node: "node-b" },
  ]);
  const [web, api, plain] = [lab.pod("web"), lab.pod("api"), lab.pod("plain")];
  for (const pod of [api, plain, web]) {
    await pod.serve("peer", PORT);
    await pod.serve("duplex", PORT + 1);
  }
  await publish(lab, {
    ports: { 80: PORT, 81: PORT + 1 },
    endpoints: [{ pod: api }, { pod: plain }],
  });

  await t.step("both are used, and every byte arrives", async () => {
    await untilServedBy(lab, web, [api, plain]);
    for (let count = 0; count < 6; count++) {
      const { code, stderr } = await web.connect(
        "duplex",
        CLUSTER_IPS[0]!,
        81,
        "--bytes",
        "3000000",
      );
      assert.equal(code, 0, stderr);
    }
  });
  await t.step("the pod itself is reached without a tunnel", async () => {
    await publish(lab, { ports: { 80: PORT }, endpoints: [{ pod: web }] });
    await untilServedBy(lab, web, [web]);
    const inClear = async () =>
      (await lab.agent("node-a").enrolment(web)).traffic?.plainStreams ?? 0;
    const before = await inClear();
    const capture = await lab.captureVeth(web);
    for (let count = 0; count < 12; count++) await servedBy(web);
    // The tunnels of the step before end in this time; none is opened.
    assert.deepEqual([...(await capture.stop()).openedPorts], []);
    assert.equal(await inClear(), before + 12);
  });
  await t.step("a pod with strict egress uses the enrolled one only", async () => {
    await publish(lab, { ports: { 80: PORT }, endpoints: [{ pod: api }, { pod: plain }] });
    await web.annotateWith("kube-gateway.io/egress", "strict");
    await untilServedBy(lab, web, [api]);
  });
});

Deno.test("an address that one Service takes over from another stays redirected", async (t) => {
  await using lab = await openScene([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "api", node: "node-b", annotation: "true" },
    { name: "other", node: "node-b", annotation: "true" },
  ]);
  const [web, api, other] = [lab.pod("web"), lab.pod("api"), lab.pod("other")];
  for (const pod of [api, other]) await pod.serve("peer", PORT);
  const say = (services: Record<string, [address: string, pod: Pod]>) =>
    writeServices(
      lab,
      "services.json",
      Object.entries(services).map(([name, [address, pod]]) => ({
        name,
        clusterIps: [address],
        ports: { 80: PORT },
        endpoints: [{ pod }],
      })),
    );
  const assertServed = async (address: string, by: Pod) => {
    const capture = await lab.captureVeth(web);
    await until(
      async () => await servedBy(web, address) === by.ipv4,
      15_000,
      () => `${address}\n${lab.agent("node-a").logTail()}`,
    );
    const { packets, isOnlyPort } = await capture.stop();
    assert.ok(isOnlyPort(TUNNEL_PORT), `${packets.length} packets`);
  };
  const [one, two] = ["10.96.0.50", "10.96.0.51"];

  await t.step("renamed in one update", async () => {
    await say({ old: [one, api] });
    await until(async () => await servedBy(web, one) === api.ipv4, 15_000, () => "no Service");
    await say({ new: [one, other] });
    await assertServed(one, other);
  });
  await t.step("swapped in one update", async () => {
    await say({ p: [one, api], q: [two, other] });
    await until(async () => await servedBy(web, two) === other.ipv4, 15_000, () => "no Service");
    await assertServed(one, api);
    await say({ p: [two, api], q: [one, other] });
    await assertServed(two, api);
    await assertServed(one, other);
  });
  await t.step("claimed by two, which a problem tells", async () => {
    await say({ p: [one, api], q: [one, other] });
    await assertServed(one, api);
    const { problems } = await lab.agent("node-a").status();
    assert.deepEqual(problems.map(({ where }) => where), [`${one}:80`]);
    await say({ q: [one, other] });
    await assertServed(one, other);
  });
});

Deno.test("all endpoints are replaced under load and no connection fails", async () => {
  await using lab = await openScene([{ name: "web", node: "node-a", annotation: "true" }]);
  const web = lab.pod("web");
  let current: Pod[] = [];
  const generation = async (number: number): Promise<Pod[]> => {
    const pods = await lab.addPods([1, 2].map((index) => ({
      name: `api-${number}-${index}`,
      node: "node-b",
      annotation: "true",
    })));
    for (const pod of pods) {
      await pod.serve("hello", PORT);
      await lab.waitEnrolled(pod);
    }
    return pods;
  };
  current = await generation(0);
  await publish(lab, { ports: { 80: PORT }, endpoints: current.map((pod) => ({ pod })) });
  await until(
    async () => (await web.connect("who", CLUSTER_IPS[0]!, 80)).code === 0,
    10_000,
    () => "",
  );

  // 200 new connections a second: four clients, one each 20 ms.
  const clients = [0, 1, 2, 3].map(() =>
    web.startClient("send", CLUSTER_IPS[0]!, 80, "--every", "20", "--new-connection")
  );
  for (let number = 1; number <= 3; number++) {
    const next = await generation(number);
    const both = [
      ...next.map((pod) => ({ pod })),
      ...current.map((pod) => ({ pod, ready: false, serving: true, terminating: true })),
    ];
    await publish(lab, { ports: { 80: PORT }, endpoints: both });
    // kubelet gives a pod its grace period; an application that is well made serves what it has
    // begun.
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    await Promise.all(current.map((pod) => pod.remove()));
    await publish(lab, { ports: { 80: PORT }, endpoints: next.map((pod) => ({ pod })) });
    current = next;
  }
  let sent = 0;
  for (const client of clients) {
    await client.stop("SIGTERM");
    sent += client.events.filter(({ event }) => event === "sent").length;
    assert.deepEqual(client.events.filter(({ event }) => event === "failed"), []);
  }
  assert.ok(sent > 500, `only ${sent} connections were made`);
});

/** A Service named "api" as the test's pods dial it. */
async function publish(lab: Lab, service: Partial<LabService>): Promise<void> {
  await writeService(lab, {
    name: "api",
    clusterIps: CLUSTER_IPS,
    ports: { 80: PORT },
    endpoints: [],
    ...service,
  });
}

/** The IPv4 address of the pod that answers; a text that is no address when none does. */
async function servedBy(client: Pod, address = CLUSTER_IPS[0]!): Promise<string> {
  const { result } = await client.connect("peer", address, 80, "--timeout", "5");
  const server = result.server as { getsockname: [string, number] } | undefined;
  return server?.getsockname[0].replace("::ffff:", "") ?? String(result.errno);
}

/** Waits until just these pods answer, which 12 connections then must show. */
async function untilServedBy(lab: Lab, client: Pod, pods: Pod[]): Promise<void> {
  const wanted = pods.map(({ ipv4 }) => ipv4).sort();
  let seen: string[] = [];
  await until(
    async () => {
      const answers = new Set<string>();
      for (let count = 0; count < 12; count++) answers.add(await servedBy(client));
      seen = [...answers].sort();
      return seen.join() === wanted.join();
    },
    15_000,
    () => `served by ${seen}, not ${wanted}\n${lab.agent("node-a").logTail()}`,
  );
}
