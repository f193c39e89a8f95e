/**
 * The promise: leaving is complete. What the kernel held of a pod is gone, and the pod's network is
 * plain.
 */
import assert from "node:assert/strict";
import { OUTBOUND_PORT, TUNNEL_PORT } from "../src/constants.ts";
import { parseAddress } from "../src/addresses.ts";
import { runCommand } from "./lab/agent.ts";
import { until } from "./lab/delay.ts";
import { attachedPrograms, mapKeys, pathsBelow, tcpSockets } from "./lab/kernel.ts";
import type { Lab } from "./lab/lab.ts";
import type { Pod } from "./lab/pod.ts";
import { openScene } from "./lab/scene.ts";

const PORT = 9000;
const CANARY = "canary-e7-canary";

Deno.test("a pod that leaves is left with a plain network and nothing of the gateway", async (t) => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  await api.serve("echo", PORT);

  await t.step("the detectors see an enrolled pod", async () => {
    assert.equal(await conversation(lab, web, api), "encrypted");
    for (const pod of [web, api]) {
      assert.equal((await attachedPrograms(pod.cgroup)).length, 8);
      const { listening, inMaps, pins } = await traces(lab, pod);
      assert.deepEqual(listening, [OUTBOUND_PORT, TUNNEL_PORT]);
      assert.ok(inMaps.includes("peers of node-a") && inMaps.includes("peers of node-b"));
      assert.ok(inMaps.includes(`pods of ${pod.node.name}`) && pins.length === 8);
    }
  });

  for (const [how, value] of [["removed", undefined], ['set to "false"', "false"]] as const) {
    for (const pod of [web, api]) {
      await t.step(`the annotation of ${pod.name} is ${how}, and set again`, async () => {
        await pod.annotate(value);
        await lab.waitPlain(pod);
        assert.equal(await conversation(lab, web, api), "plain");
        await assertNothingLeft(lab, pod);
        await pod.annotate("true");
        await lab.waitEnrolled(pod);
        assert.equal(await conversation(lab, web, api), "encrypted");
      });
    }
  }

  await t.step("an open conversation goes on when the annotation is removed", async () => {
    const hello = await api.serve("hello", PORT + 1);
    await using talking = web.startClient("send", api.ipv4!, PORT + 1, "--every", "50");
    await talking.waitForEvent(({ event }) => event === "sent");
    await web.annotate("false");
    await until(
      async () => (await attachedPrograms(web.cgroup)).length === 0,
      10_000,
      () => "the programs are still attached",
    );
    const { number } = talking.events.at(-1)!;
    await talking.waitForEvent((event) => Number(event.number) > Number(number) + 3);
    assert.ok(talking.events.every(({ event }) => event === "sent"), talking.stdout.tail());
    await talking.stop();
    await lab.waitPlain(web);
    await assertNothingLeft(lab, web);
    await hello.stop();
    await web.annotate("true");
    await lab.waitEnrolled(web);
  });

  await t.step("a deleted pod leaves nothing", async () => {
    const guest = await lab.addPod({ name: "guest", node: "node-a", annotation: "true" });
    await lab.waitEnrolled(guest);
    assert.equal(await conversation(lab, guest, api), "encrypted");
    await guest.remove();
    await lab.waitPlain(guest);
    const { inMaps, pins } = await traces(lab, guest, { sockets: false });
    assert.deepEqual([inMaps, pins], [[], []]);
  });

  await t.step("SIGTERM: an agent takes back everything, and both pods talk in clear", async () => {
    assert.equal(await lab.agent("node-a").stop(), 0);
    assert.deepEqual(await agentTraces(lab, "node-a"), []);
    await until(
      async () => !(await lab.agent("node-b").status()).peers.some(({ pod }) => pod === web.key),
      10_000,
      () => "web is still a peer for node-b",
    );
    await assertNothingLeft(lab, web);
    assert.equal(await conversation(lab, web, api), "plain");
    assert.equal(await lab.agent("node-b").stop(), 0);
    await assertNothingLeft(lab, api);
    assert.deepEqual(await agentTraces(lab, "node-b"), []);
  });
});

Deno.test("an agent that was killed leaves its pods refused, never in clear, until there is another", async (t) => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  for (const pod of [web, api]) await pod.serve("echo", PORT);

  for (const killed of ["node-a", "node-b"]) {
    await t.step(`the agent of ${killed} is killed, and comes back`, async () => {
      await lab.agent(killed).kill();
      assert.equal(await conversation(lab, web, api), "refused");
      assert.equal(await conversation(lab, api, web), "refused");
      await lab.startAgent(killed);
      await Promise.all([lab.waitEnrolled(web), lab.waitEnrolled(api)]);
      assert.equal(await conversation(lab, web, api), "encrypted");
      assert.equal(await conversation(lab, api, web), "encrypted");
    });
  }

  await t.step("never a byte in clear while an agent is killed and comes back", async () => {
    await using capture = await lab.captureVeth(web);
    await using insistent = web.startClient(
      "send",
      api.ipv4!,
      PORT,
      ...["--new-connection", "--no-reply", "--every", "2", "--text", CANARY],
    );
    await insistent.waitForEvent(({ event }) => event === "sent");
    await lab.agent("node-a").kill();
    await insistent.waitForEvent(({ event }) => event === "failed");
    await lab.startAgent("node-a");
    await lab.waitEnrolled(web);
    const { number } = insistent.events.at(-1)!;
    await insistent.waitForEvent(({ event, number: later }) =>
      event === "sent" && Number(later) > Number(number) + 20
    );
    await insistent.stop();
    const { contains, isOnlyPort, dropped } = await capture.stop();
    assert.deepEqual([contains(CANARY), isOnlyPort(TUNNEL_PORT), dropped], [0, true, 0]);
  });

  await t.step(
    "a pod that lost its annotation meanwhile is plain with the next agent",
    async () => {
      await lab.agent("node-a").kill();
      await web.annotate(undefined);
      await lab.startAgent("node-a");
      await lab.waitPlain(web);
      await assertNothingLeft(lab, web);
      assert.equal(await conversation(lab, web, api), "plain");
      await web.annotate("true");
      await lab.waitEnrolled(web);
    },
  );

  await t.step("`kube-gateway cleanup` detaches what killed agents have left", async () => {
    for (const { name } of lab.nodes) await lab.agent(name).kill();
    assert.equal(await conversation(lab, web, api), "refused");
    for (const node of lab.nodes) {
      const { code, stdout, stderr } = await runCommand(
        node,
        ...["cleanup", "--state-dir", `${lab.bpffs}/${node.name}`],
      );
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^detached 1 pod /);
    }
    for (const pod of [web, api]) {
      await assertNothingLeft(lab, pod);
      assert.deepEqual(await pathsBelow(`${lab.bpffs}/${pod.node.name}`), []);
    }
    assert.equal(await conversation(lab, web, api), "plain");
    assert.equal(await conversation(lab, api, web), "plain");
  });
});

/** What a conversation in both families is, as a capture at the client's own link shows it. */
async function conversation(lab: Lab, client: Pod, server: Pod): Promise<string> {
  await using capture = await lab.captureVeth(client);
  const codes: number[] = [];
  for (const host of server.addresses) {
    codes.push((await client.connect("echo", host, PORT, "--text", CANARY)).code);
  }
  const { contains, isOnlyPort, packets, openedPorts, dropped } = await capture.stop();
  assert.equal(dropped, 0);
  const canaries = contains(CANARY);
  const answered = codes.every((code) => code === 0);
  const unanswered = codes.every((code) => code === 1);
  const inTunnel = isOnlyPort(TUNNEL_PORT) && canaries === 0;
  if (answered && inTunnel) return "encrypted";
  // The end of a tunnel of before may still be on its way.
  const isOpened = openedPorts.size === 1 && openedPorts.has(PORT);
  if (answered && canaries >= 4 && isOpened) return "plain";
  if (unanswered && (inTunnel || packets.length === 0)) return "refused";
  return `codes ${codes}, canaries ${canaries}, ports ${[...openedPorts]}`;
}

/** Where a pod is still to be found, besides its own programs. */
async function traces(lab: Lab, pod: Pod, { sockets = true } = {}) {
  const ports = (sockets ? await tcpSockets(pod) : [])
    .filter(({ state }) => state === "LISTEN").map(({ local }) => Number(local.split(":").at(-1)));
  const listening = [...new Set(ports)].filter((port) => port >= OUTBOUND_PORT).sort();
  const inMaps: string[] = [];
  const pins: string[] = [];
  for (const { name } of lab.nodes) {
    const state = `${lab.bpffs}/${name}`;
    const paths = await pathsBelow(state);
    pins.push(...paths.filter((path) => path.includes(`/pods/${pod.uid}/`)));
    if (paths.length === 0) continue; // its agent has ended
    const peers = await mapKeys(state, "peers");
    const own = pod.addresses.map((address) => parseAddress(address).toHex());
    if (own.some((key) => peers.includes(key))) inMaps.push(`peers of ${name}`);
    if (pod.node.name !== name) continue;
    // This lab has one enrolled pod on each node: what these hold is its.
    for (const map of ["pods", "flows", "origins"]) {
      const keys = await mapKeys(state, map);
      if (keys.length > (pod.name === "guest" && map === "pods" ? 1 : 0)) {
        inMaps.push(`${map} of ${name}`);
      }
    }
  }
  return { listening, inMaps, pins };
}

async function assertNothingLeft(lab: Lab, pod: Pod): Promise<void> {
  assert.deepEqual(await attachedPrograms(pod.cgroup), []);
  assert.deepEqual(await traces(lab, pod), { listening: [], inMaps: [], pins: [] });
}

/** What an agent itself leaves: pins, its registry file, its admin socket. */
async function agentTraces(lab: Lab, node: string): Promise<string[]> {
  const inCluster = (await pathsBelow(lab.directory)).filter((path) =>
    path.includes("/registry/") && path.includes(node)
  );
  const sockets = (await pathsBelow(lab.temporary)).filter((path) => path.endsWith(`${node}.sock`));
  return [...await pathsBelow(`${lab.bpffs}/${node}`), ...inCluster, ...sockets];
}
