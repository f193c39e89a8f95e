/**
 * The promise: what an enrolled pod sends to peers in clear is counted as its own, and told,
 * whatever other pods send.
 */
import assert from "node:assert/strict";
import { slicesOf } from "../src/cluster/registry.ts";
import { until } from "./lab/delay.ts";
import { mapKeys } from "./lab/kernel.ts";
import type { Lab } from "./lab/lab.ts";
import type { Pod } from "./lab/pod.ts";
import { openScene } from "./lab/scene.ts";

const PORT = 9000;
const TEXT = "in clear, to somebody who does not answer";

/**
 * Peers that nobody plays, and how many of them each of their nodes has: its registry's bound is a
 * little more.
 */
const PREFIX = "10.200";
const [NODES, PEERS_OF_NODE] = [4, 4_000];
const PEERS = NODES * PEERS_OF_NODE;

/** How many counts one pod may have: its peers' (bpf/maps.h) and its own two. */
const SHARE = 13 + 2;

Deno.test("one pod sends in clear to 16,000 peers, and what another one sends is counted for it", async (t) => {
  await using lab = await openScene([
    { name: "greedy", node: "node-a", annotation: "true", namespace: "greedy" },
    { name: "web", node: "node-a" },
    { name: "api", node: "node-b" },
  ]);
  const [greedy, web, api] = [...lab.pods];
  assert(greedy && web && api?.ipv4);
  await writePeers(lab);
  await api.serve("hello", PORT);
  // A connection that is older than the enrolment, and so in clear.
  const older = web.startClient("send", api.ipv4, PORT, "--every", "50");
  await older.waitForEvent(({ event }) => event === "sent");

  await t.step("what the one sends is counted whole, in its own share of the map", async () => {
    const argv = ["python3", `${import.meta.dirname}/lab/apps/scatter.py`, "--prefix", PREFIX];
    const more = ["--count", `${PEERS}`, "--port", `${PORT}`, "--text", TEXT];
    const { code, stderr } = await greedy.run([...argv, ...more]);
    assert.equal(code, 0, stderr);
    await untilPlaintext(lab, greedy, PEERS * TEXT.length);
    const { plaintext } = await lab.agent("node-a").enrolment(greedy);
    assert.equal(plaintext?.packets, PEERS);
    assert.equal(plaintext.peers[0]?.peer, "other peers");
    const keys = await mapKeys(lab.agent("node-a").paths.stateDirectory, "guard_counts");
    assert.equal(keys.length, SHARE);
  });

  await t.step("another pod's bytes in clear are its own, and told", async () => {
    for (const pod of [web, api]) await pod.annotate("true");
    for (const pod of [web, api]) await untilActive(lab, pod);
    await untilPlaintext(lab, web, 1);
    const { plaintext } = await lab.agent("node-a").enrolment(web);
    assert.deepEqual(plaintext?.peers.map(({ peer }) => peer), [api.ipv4]);
    const first = new RegExp(`^${web.ipv4}:\\d+ to ${api.ipv4}:${PORT}$`);
    assert.match(plaintext.peers[0]?.first ?? "", first);
    const { stdout } = await lab.agent("node-a").command("status");
    assert.match(stdout, /default\/web: \d+ bytes went in clear to peers since/);
    assert.equal(older.events.every(({ event }) => event === "sent"), true, "it was never cut");
  });

  await t.step("who sends nothing in clear is said to have sent nothing", async () => {
    const { plaintext } = await lab.agent("node-b").enrolment(api);
    assert(plaintext !== undefined);
    const silent = await lab.addPod({ name: "silent", node: "node-a", annotation: "true" });
    await untilActive(lab, silent);
    await lab.agent("node-a").command("audit");
    const said = await lab.agent("node-a").enrolment(silent);
    assert.deepEqual(said.plaintext, { packets: 0, payloadBytes: 0, peers: [] });
  });
});

/** Names the peers in the registry, and waits until the kernel knows them. */
async function writePeers(lab: Lab): Promise<void> {
  for (let number = 0; number < NODES; number++) {
    const node = `node-${number}`;
    const entries = Array.from({ length: PEERS_OF_NODE }, (_, index) => {
      const pod = number * PEERS_OF_NODE + index;
      return {
        uid: crypto.randomUUID(),
        name: `pod-${pod}`,
        namespace: "many",
        identity: "spiffe://cluster.local/ns/many/sa/many",
        node,
        addresses: [`${PREFIX}.${pod >> 8}.${pod & 255}`],
        ready: true,
      };
    });
    const items = slicesOf(node, entries);
    await lab.write(
      `registry/${node}.json`,
      JSON.stringify({ apiVersion: "v1", kind: "List", items }),
    );
  }
  let count = 0;
  await until(
    async () => (count = (await lab.agent("node-a").status()).peerCount) >= PEERS,
    30_000,
    () => `${count} peers are known\n${lab.agent("node-a").logTail()}`,
  );
}

/** Lab.waitEnrolled looks among the peers that an agent lists, which are a thousand at most. */
async function untilActive(lab: Lab, pod: Pod): Promise<void> {
  const agent = lab.agent(pod.node.name);
  await until(
    async () => {
      const { enrolments } = await agent.status();
      return enrolments.some(({ uid, state }) => uid === pod.uid && state === "active");
    },
    30_000,
    () => `${pod.key} is not enrolled\n${agent.logTail()}`,
  );
}

/** Waits until so many bytes, at least, are said to have gone in clear from a pod to its peers. */
async function untilPlaintext(lab: Lab, pod: Pod, bytes: number): Promise<void> {
  const agent = lab.agent(pod.node.name);
  let said: number | undefined;
  await until(
    async () => {
      said = (await agent.enrolment(pod)).plaintext?.payloadBytes;
      return said !== undefined && said >= bytes;
    },
    30_000,
    () => `${said} bytes of ${pod.key} are said to be in clear, not ${bytes}\n${agent.logTail()}`,
  );
}
