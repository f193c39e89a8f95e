/**
 * The promise: no handshake costs a server out of proportion, whoever makes it and however it ends.
 */
import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { openFrame } from "./lab/hostile.ts";
import { Authority, type Credential } from "./lab/pki.ts";
import { register } from "./lab/registry.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";
import { cpuSeconds, isBack, quiet } from "./lab/usage.ts";

const PORT = 9000;
/** Of what an honest handshake costs. */
const MOST_TIMES = 100;
const ATTEMPTS = 40;

Deno.test("handshakes that cost as much as they can", async (t) => {
  await using lab = await openScene([...WEB_AND_API, { name: "intruder", node: "node-a" }]);
  const [web, api, intruder] = [lab.pod("web"), lab.pod("api"), lab.pod("intruder")];
  const agent = lab.agent("node-b");
  await api.serve("echo", PORT);
  const serves = async () => assert.equal((await web.connect("echo", api.ipv4!, PORT)).code, 0);
  const [mine, dialled] = [intruder.ipv4!, api.ipv4!];
  const uri = "spiffe://cluster.local/ns/default/sa/intruder";
  const ca = await Authority.ofCluster(lab.directory, lab.temporary);
  const credential = await ca.issue({ uris: [uri], addresses: [mine] });
  await register(lab, intruder, uri);
  const good = ["--certificate", credential.certificate, "--key", credential.key];
  const open = ["--send", openFrame({ port: PORT, client: mine, dialled })];
  await serves();
  const atRest = await quiet(agent);

  /**
   * What the agent has done for each attempt, in milliseconds of a processor, and how they ended.
   */
  const run = async (kind: string, more: readonly string[]) => {
    const before = cpuSeconds(agent.pid);
    const { events, stderr } = await intruder.run([
      ...["python3", "-B", "-S", `${import.meta.dirname}/lab/apps/costly.py`, "--kind", kind],
      ...["--host", dialled, "--port", `${TUNNEL_PORT}`, "--attempts", `${ATTEMPTS}`, ...more],
    ], { timeoutMs: 120_000 });
    const cost = (cpuSeconds(agent.pid) - before) / ATTEMPTS * 1000;
    const [{ ends, key_updates } = {}] = events;
    assert.ok(ends, stderr);
    console.log(`${kind}: ${cost.toFixed(1)} ms each, ${JSON.stringify(ends)}, ${key_updates}`);
    return { cost, ends: ends as unknown as Record<string, number> };
  };
  const honest = await run("handshake", good);
  const show = ({ certificate, key }: Credential) => ["--certificate", certificate, "--key", key];
  const chain = async (isOneName: boolean) =>
    show(await Authority.longChain(lab.temporary, 100, isOneName));
  for (
    const [name, kind, more] of [
      ["a ClientHello byte by byte", "bytes", []],
      ["a ClientHello in records of one byte", "records", []],
      ["a ClientHello of 60 kB", "long-hello", []],
      ["a close_notify in the middle", "close-notify", []],
      ["garbage", "garbage", []],
      ["a chain of 100 certificates", "handshake", await chain(false)],
      [
        "100 certificates, each of which could have issued each other",
        "handshake",
        await chain(true),
      ],
      ["key updates without end, by a peer", "key-updates", [...good, ...open]],
    ] as const
  ) {
    await t.step(name, async () => {
      const { cost, ends } = await run(kind, more);
      assert.ok(cost < MOST_TIMES * honest.cost, `${cost} ms, an honest one ${honest.cost} ms`);
      if (kind === "key-updates") assert.deepEqual(ends, { ended: ATTEMPTS });
      await serves();
    });
  }
  await quiet(agent);
  await isBack([agent], [atRest], 20_000);
});
