/**
 * The promise: a node whose agent names other nodes' pods in its registry (a stolen token may) cuts
 * them off for no longer than it takes them to show a certificate. Where podCIDRs are in use it is
 * not believed at all.
 */
import assert from "node:assert/strict";
import { slicesOf } from "../src/cluster/registry.ts";
import { Canary } from "./lab/canary.ts";
import { until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";
import { waitSecured } from "./lab/secured.ts";

/** A UID, smaller than those of pods that there are. */
const CLAIMED = "00000000-0000-4000-8000-000000000000";
const PORT = 9000;
const CANARY = "canary that must not be read on the wire";

Deno.test("a pod whose address another node claims, too, is reached again once its certificate was seen", async (t) => {
  await using lab = await Lab.open({ cluster: "api" });
  await lab.startSigner();
  await Promise.all(lab.nodes.map(({ name }) => lab.startAgent(name)));
  const [web, api] = await lab.addPods([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "api", node: "node-b", annotation: "true" },
  ]);
  assert(web && api);
  await api.serve("hello", PORT);
  for (const pod of [web, api]) await waitSecured(lab, pod, "True");
  // So many that podCIDRs do not seem to be in use.
  for (const number of [101, 102, 103]) {
    await lab.api.addNode({ name: `node-${number}`, number });
    await claim(lab, `node-${number}`, [`10.99.0.${number}`]);
  }
  const capture = await lab.captureVeth(web, { filter: "tcp" });
  await using canary = new Canary(web, api, PORT, CANARY);
  await canary.answered();

  for (const [claimed, reader] of [[api, "node-a"], [web, "node-b"]] as const) {
    await t.step(`${claimed.name} is claimed`, async () => {
      await claim(lab, "node-103", claimed.addresses);
      await untilProblems(lab, reader, claimed.addresses);
      await canary.answered();
    });
  }
  await t.step(
    "the deny list names the pod that is said to be there, and cuts nobody else",
    async () => {
      await deny(lab, `${CLAIMED} nobody/x`);
      for (const { name } of lab.nodes) await untilProblems(lab, name, ["kube-gateway-deny"]);
      await canary.answered();
    },
  );
  await t.step("a claim of its address keeps no pod from being denied", async () => {
    await deny(lab, web.uid);
    await canary.refused();
  });
  const { contains, dropped } = await capture.stop();
  assert.deepEqual([contains(CANARY), dropped], [0, 0]);
});

async function deny(lab: Lab, pods: string): Promise<void> {
  const metadata = { name: "kube-gateway-deny", namespace: "kube-gateway" };
  await lab.api.server.apply({ apiVersion: "v1", kind: "ConfigMap", metadata, data: { pods } });
}

/** Makes, or changes, what a node's agent would publish. */
async function claim(lab: Lab, node: string, addresses: readonly string[]): Promise<void> {
  const entry = {
    uid: CLAIMED,
    namespace: "evil",
    name: "evil",
    identity: "spiffe://cluster.local/ns/evil/sa/evil",
    node,
    addresses,
    ready: true,
  };
  for (const slice of slicesOf(node, [entry])) await lab.api.server.apply(slice);
}

/** Until a node's agent has problems with all of these. */
async function untilProblems(lab: Lab, node: string, wanted: readonly string[]): Promise<void> {
  let last: readonly object[] = [];
  await until(
    async () => {
      const { problems } = await lab.agent(node).status();
      last = problems;
      return wanted.every((each) => problems.some(({ where }) => where === each));
    },
    30_000,
    () => `${JSON.stringify(last)}\n${lab.logTails()}`,
  );
}
