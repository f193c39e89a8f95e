import assert from "node:assert/strict";
import { Lab } from "./lab/lab.ts";

Deno.test("certificates are renewed at half life, without touching a live tunnel", async () => {
  await using lab = await Lab.open();
  const [client, server] = await lab.addPods([
    { name: "client", node: "node-a", annotation: "true" },
    { name: "server", node: "node-b", annotation: "true" },
  ]);
  assert(client && server?.ipv4);
  const agents = await Promise.all(
    ["node-a", "node-b"].map((node) => lab.startAgent(node, { args: ["--cert-ttl", "10"] })),
  );
  for (const pod of [client, server]) await lab.waitEnrolled(pod);
  const serials = async () =>
    await Promise.all(agents.map(async (agent) => {
      const [enrolment] = (await agent.status()).enrolments;
      return JSON.stringify(enrolment?.certificate);
    }));
  const before = await serials();
  await server.serve("hello", 9000);
  // One connection that lives longer than the certificates it began with: 10 s.
  const talk = client.connect("send", server.ipv4, 9000, "--every", "500", "--count", "26");
  for (const agent of agents) {
    await agent.waitForLog(
      ({ message }) => message?.startsWith("renewed the certificate") ?? false,
      15_000,
    );
  }
  for (const [index, serial] of (await serials()).entries()) assert.notEqual(serial, before[index]);
  const { code, stderr } = await talk;
  assert.equal(code, 0, stderr);
  const later = await client.connect("send", server.ipv4, 9000, "--count", "1");
  assert.equal(later.code, 0, later.stderr);
});
