/**
 * The promise: while the DaemonSet is there, an agent that ends leaves its pods held: nothing in
 * clear until the next agent has them. When the DaemonSet is deleted, they go back to plain
 * connections.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import type { Agent } from "./lab/agent.ts";
import { delay, until } from "./lab/delay.ts";
import { attachedPrograms } from "./lab/kernel.ts";
import { Lab } from "./lab/lab.ts";

const PORT = 9000;
const GREETING_PORT = 9001;
const CANARY = "canary-77aa-canary";
const ARGS = ["--daemon-set", "kube-gateway-agent"];

Deno.test("upgrade, restart and removal of the agents", async (t) => {
  await using lab = await Lab.open({ cluster: "api" });
  const [web, api, plain] = await lab.addPods([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "api", node: "node-b", annotation: "true" },
    { name: "plain", node: "node-b" },
  ]);
  assert(web && api?.ipv4 && plain?.ipv4);
  await lab.startSigner();
  let agents = 0;
  // Each a pod of its own, as a DaemonSet's are: a new one is held like every other until it has
  // decided on itself.
  const start = async (node: string, metricsPort: number) => {
    const name = `kube-gateway-agent-${++agents}`;
    const pod = await lab.addPod({ name, namespace: "kube-gateway", node, hostNetwork: true });
    return await lab.startAgent(node, {
      args: [...ARGS, "--metrics-address", `127.0.0.1:${metricsPort}`],
      pod,
      wait: false,
    });
  };
  const b = await start("node-b", 8080);
  let a = await start("node-a", 8080);
  for (const agent of [a, b]) await agent.waitReady();
  for (const pod of [web, api]) await lab.waitEnrolled(pod);
  for (const pod of [api, plain]) await pod.serve("echo", PORT);
  await api.serve("hello", GREETING_PORT);
  const says = async (host: string) =>
    (await web.connect("echo", host, PORT, "--text", CANARY)).result;
  const filter = "tcp and not port 6443";

  await t.step("an agent that ends leaves its pods held, and published", async () => {
    await using capture = await lab.captureNodeLink("node-a", { filter });
    assert.equal(await a.stop(), 0);
    assert.equal((await says(api.ipv4 ?? "")).event, "error", "a peer is refused");
    assert.equal((await says(plain.ipv4 ?? "")).reply, CANARY, "everything else works");
    assert.notDeepEqual(await attachedPrograms(web.cgroup), []);
    assert(await isPeer(b, web.ipv4), "others still expect encryption");
    const { packets } = await capture.stop();
    assert(packets.every(({ destinationAddress }) => destinationAddress !== api.ipv4));
  });

  await t.step("the next agent takes over what it finds", async () => {
    a = await start("node-a", 8080);
    await a.waitReady();
    await lab.waitEnrolled(web);
    assert.equal((await says(api.ipv4 ?? "")).reply, CANARY);
  });

  await t.step(
    "an agent that is to replace another stands by, ready, until that has ended",
    async () => {
      const next = await start("node-a", 8081);
      await next.waitForLog(({ message }) => message?.startsWith("standing by") ?? false);
      assert.match(await probe(lab, "/readyz", 8081), /^200/);
      await delay(500);
      assert.equal((await a.status()).pid, a.pid, "the old one is still in charge");
      const capture = await lab.captureNodeLink("node-a", { filter });
      const talk = web.startClient("send", api.ipv4 ?? "", GREETING_PORT, ...TALK);
      await delay(500);
      const began = performance.now();
      assert.equal(await a.stop(), 0);
      await until(
        async () => (await next.status().catch(() => undefined))?.pid === next.pid,
        5_000,
        () => next.logTail(),
      );
      await lab.waitEnrolled(web);
      const gap = performance.now() - began;
      await delay(500);
      await talk.stop("SIGTERM");
      const { openedPorts, contains } = await capture.stop();
      assert.equal(contains(CANARY), 0);
      assert.deepEqual([...openedPorts], [18443]);
      assert(gap < 5_000, `${gap} ms without an agent`);
      a = next;
    },
  );

  await t.step("an agent that is told to end while it stands by has changed nothing", async () => {
    const args = [...ARGS, "--admin-socket", `${lab.temporary}/other.sock`];
    const other = await lab.startAgent("node-a", { args, wait: false });
    const { holder } = await other.waitForLog(({ message }) =>
      message?.startsWith("standing by") ?? false
    );
    assert.equal(holder, `process ${a.pid}`, "whatever its socket");
    assert.equal(await other.stop(), 0, other.logTail());
    lab.agents.set("node-a", a);
    assert.equal((await a.enrolment(web)).state, "active");
    assert.equal((await says(api.ipv4 ?? "")).reply, CANARY);
    assert.deepEqual(existsSync(`${lab.temporary}/other.sock`), false);
  });

  await t.step("when the DaemonSet is deleted, ending means leaving", async () => {
    const name = "kube-gateway-agent";
    await lab.api.server.delete({ resource: "daemonsets", namespace: "kube-gateway", name });
    await delay(500);
    for (const agent of [a, b]) assert.equal(await agent.stop(), 0);
    assert.deepEqual(await attachedPrograms(web.cgroup), []);
    assert.equal((await says(api.ipv4 ?? "")).reply, CANARY, "in clear");
    assert.deepEqual(await lab.api.server.list("endpointslices", "kube-gateway"), []);
  });
});

/** A new connection every 20 ms; those that fail are told and tried again. */
const TALK = ["--every", "20", "--text", CANARY, "--new-connection"];

async function isPeer(agent: Agent, wanted: string | undefined): Promise<boolean> {
  return (await agent.status()).peers.some(({ address }) => address === wanted);
}

async function probe(lab: Lab, path: string, port: number): Promise<string> {
  const { stdout } = await lab.node("node-a").run([
    "python3",
    "-c",
    "import sys, urllib.request as r\nprint(r.urlopen(sys.argv[1]).status)",
    `http://127.0.0.1:${port}${path}`,
  ]);
  return stdout;
}
