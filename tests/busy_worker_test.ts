/**
 * The promise: a bulk transfer does not slow down other pods' new connections while the agent has
 * another thread.
 */
import assert from "node:assert/strict";
import { until } from "./lab/delay.ts";
import type { Agent } from "./lab/agent.ts";
import type { Pod } from "./lab/pod.ts";
import type { LabProcess } from "./lab/process.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";

const PORT = 9000;
const CONNECTIONS = 20;
/** By chance alone, once in 5,000 runs. */
const ENOUGH = 18;

Deno.test("new connections go to the worker that no bulk transfer keeps busy, at both ends", async (t) => {
  await using lab = await openScene([
    ...WEB_AND_API,
    { name: "bulk", node: "node-a", annotation: "true" },
    { name: "sink", node: "node-b", annotation: "true" },
  ]);
  const [web, api, bulk, sink] = ["web", "api", "bulk", "sink"].map((name) => lab.pod(name));
  assert(web && api?.ipv4 && bulk && sink?.ipv4);
  await api.serve("echo", PORT);
  await sink.serve("sink", PORT);
  const ends = [[lab.agent("node-a"), bulk, web], [lab.agent("node-b"), sink, api]] as const;

  await t.step("beside a bulk transfer", async () => {
    await using _bulk = bulk.spawn([
      "bash",
      "-c",
      `exec cat /dev/zero >/dev/tcp/${sink.ipv4}/${PORT}`,
    ]);
    for (const [agent, pod] of ends) {
      await until(
        async () => (await connectionsOf(agent, pod)).some(({ bytes }) => bytes > 200_000_000),
        20_000,
        () => "no bulk transfer",
      );
    }
    await using _ = await openConnections(web, api.ipv4 ?? "");
    for (const [agent, bulky, pod] of ends) {
      const [busy] = await workersOf(agent, bulky, 1);
      const workers = await workersOf(agent, pod, CONNECTIONS);
      const elsewhere = workers.filter((worker) => worker !== busy).length;
      assert(elsewhere >= ENOUGH, `${agent.node.name}: bulk in ${busy}, the others in ${workers}`);
    }
  });

  await t.step("otherwise they are spread", async () => {
    await using _ = await openConnections(web, api.ipv4 ?? "");
    for (const [agent, , pod] of ends) {
      const workers = await workersOf(agent, pod, CONNECTIONS);
      assert.equal(new Set(workers).size, 2, `${workers}`);
    }
  });
});

/** Connections that have had an answer and are held open. */
async function openConnections(pod: Pod, host: string): Promise<LabProcess> {
  const script = `for i in $(seq ${CONNECTIONS}); do
    exec {fd}<>/dev/tcp/${host}/${PORT} && echo hello >&$fd && read -r answer <&$fd || exit 1
    sleep 0.05
  done; echo open; exec sleep infinity`;
  const holder = pod.spawn(["bash", "-c", script]);
  await holder.stdout.wait((line) => line === "open", 30_000);
  return holder;
}

async function connectionsOf(agent: Agent, pod: Pod): Promise<{ worker: number; bytes: number }[]> {
  const { stdout } = await agent.command("conns", "--json");
  const { connections } = JSON.parse(stdout) as { connections: Reported[] };
  return connections.filter((one) => one.pod === pod.key && one.state === "streaming")
    .map(({ worker, bytesSent, bytesReceived }) => ({ worker, bytes: bytesSent + bytesReceived }));
}

interface Reported {
  pod: string;
  state: string;
  worker: number;
  bytesSent: number;
  bytesReceived: number;
}

async function workersOf(agent: Agent, pod: Pod, count: number): Promise<number[]> {
  const found = await connectionsOf(agent, pod);
  assert.equal(found.length, count);
  return found.map(({ worker }) => worker);
}
