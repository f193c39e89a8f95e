/** The promise: an annotated pod is enrolled however its node is set up and whatever came first. */
import assert from "node:assert/strict";
import { OUTBOUND_PORT, TUNNEL_PORT } from "../src/constants.ts";
import { attachedPrograms, tcpSockets } from "./lab/kernel.ts";
import { Lab } from "./lab/lab.ts";
import type { Pod, PodOptions } from "./lab/pod.ts";

const PORT = 9000;
const CANARY = "canary-layout-canary";

Deno.test("every kind of pod is enrolled, whatever came first", async (t) => {
  await using lab = await Lab.open();
  const kinds: PodOptions[] = (["cgroupfs", "systemd"] as const).flatMap((layout) =>
    (["guaranteed", "burstable", "besteffort"] as const).map((qos) => ({
      name: `${layout}-${qos}`,
      node: "node-b",
      layout,
      qos,
      annotation: "true",
    }))
  );
  const [web] = await lab.addPods([
    { name: "web", node: "node-a", annotation: "true" },
    ...kinds,
    { name: "busy", node: "node-b", annotation: "true" },
    { name: "only-ipv4", node: "node-b", families: ["ipv4"], annotation: "true" },
    { name: "only-ipv6", node: "node-b", families: ["ipv6"], annotation: "true" },
    { name: "other-namespace", namespace: "shop", node: "node-b", annotation: "true" },
  ]);
  const busy = lab.pod("busy");
  await busy.serve("echo", OUTBOUND_PORT, "--address", "127.0.0.1");
  // Only now: all of them were annotated before there was an agent.
  await Promise.all(lab.nodes.map(({ name }) => lab.startAgent(name)));
  await lab.waitEnrolled(web!);
  await web!.serve("echo", PORT);

  for (const { name, layout, qos } of kinds) {
    await t.step(
      `a ${qos} pod in the ${layout} layout, annotated before its agent starts`,
      async () => {
        await assertEncrypted(lab, web!, lab.pod(name));
      },
    );
  }
  for (const name of ["only-ipv4", "only-ipv6", "other-namespace"]) {
    await t.step(
      `a pod called ${name}`,
      async () => await assertEncrypted(lab, web!, lab.pod(name)),
    );
  }

  await t.step("a pod that uses the outbound port itself keeps it and gets another", async () => {
    await assertEncrypted(lab, web!, busy);
    const { code } = await busy.connect("echo", "127.0.0.1", OUTBOUND_PORT);
    assert.equal(code, 0, "its own application is still there");
    const listening = (await tcpSockets(busy)).filter(({ state }) => state === "LISTEN");
    const others = listening.map(({ local }) => local).filter((local) =>
      /^(127\.0\.0\.1|\[::1\]):/.test(local) && !local.endsWith(`:${OUTBOUND_PORT}`)
    );
    assert.ok(others.length > 0, `no other outbound port: ${JSON.stringify(listening)}`);
  });

  await t.step("a pod that is born annotated, while its agent runs", async () => {
    const young = await lab.addPod({
      name: "young",
      node: "node-b",
      annotation: "true",
      object: "before",
    });
    await young.apply();
    await assertEncrypted(lab, web!, young);
  });

  await t.step("a pod that is annotated late, without a restart of anything in it", async () => {
    const late = await lab.addPod({ name: "late", node: "node-b" });
    await using server = await late.serve("hello", PORT + 1);
    const before = await web!.connect("who", late.ipv4!, PORT + 1, "--text", "in clear");
    assert.equal(before.code, 0);
    await late.annotate("true");
    await assertEncrypted(lab, web!, late);
    const after = await web!.connect("who", late.ipv4!, PORT + 1, "--text", "encrypted");
    assert.equal(after.code, 0);
    assert.equal(server.events.filter(({ event }) => event === "message").length, 2);
  });

  await t.step("a pod whose address was an enrolled pod's before it", async () => {
    const first = lab.pod("late");
    const host = Number(first.ipv4!.split(".").at(-1));
    await first.remove();
    const heir = await lab.addPod({ name: "heir", node: "node-b", host, annotation: "true" });
    assert.equal(heir.ipv4, first.ipv4);
    await assertEncrypted(lab, web!, heir);
    await heir.annotate("false");
    await lab.waitPlain(heir);
    await heir.serve("echo", PORT);
    const { code } = await web!.connect("echo", heir.ipv4!, PORT);
    assert.equal(code, 0, "in clear again");
  });
});

/** Both ways, over every address that both have. */
async function assertEncrypted(lab: Lab, web: Pod, pod: Pod): Promise<void> {
  await lab.waitEnrolled(pod);
  assert.equal((await attachedPrograms(pod.cgroup)).length, 8);
  await using _server = await pod.serve("echo", PORT);
  await using capture = await lab.captureVeth(pod);
  for (const [client, server] of [[web, pod], [pod, web]] as const) {
    const hosts = server.addresses.filter((address) =>
      client.addresses.some((own) => own.includes(":") === address.includes(":"))
    );
    assert.ok(hosts.length > 0);
    for (const host of hosts) {
      const { code, stdout } = await client.connect("echo", host, PORT, "--text", CANARY);
      assert.equal(code, 0, `${client.key} to ${host}: ${stdout}`);
    }
  }
  const { contains, isOnlyPort, dropped } = await capture.stop();
  assert.deepEqual([contains(CANARY), isOnlyPort(TUNNEL_PORT), dropped], [0, true, 0]);
}
