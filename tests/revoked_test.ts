/**
 * The promise: whoever is nobody any more is cut, open streams too: when the deny list names him
 * within seconds, when the registry does so no more within a minute. Others go on.
 */
import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { until } from "./lab/delay.ts";
import { attack, openFrame } from "./lab/hostile.ts";
import type { Lab } from "./lab/lab.ts";
import { Authority } from "./lab/pki.ts";
import { register, unregister } from "./lab/registry.ts";
import type { Pod } from "./lab/pod.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";

const PORT = 9000;
const ID = "spiffe://cluster.local/ns/default/sa";

Deno.test("who is denied, or leaves the registry, is cut", async (t) => {
  await using lab = await openScene([
    ...WEB_AND_API,
    { name: "good", node: "node-a", annotation: "true" },
    { name: "intruder", node: "node-a" },
  ]);
  const [web, api, good, intruder] = ["web", "api", "good", "intruder"].map((name) =>
    lab.pod(name)
  );
  assert(web && api && good && intruder);
  await api.serve("hello", PORT);
  await using bystander = good.startClient("send", api.ipv4 ?? "", PORT, "--every", "50");
  await bystander.waitForEvent(({ event }) => event === "sent");
  const serial = async () => (await lab.agent("node-a").enrolment(web)).certificate?.serial ?? "";

  const kinds: Record<string, () => Promise<Record<string, string>>> = {
    "its pod": () => Promise.resolve({ pods: web.uid }),
    "its identity": () => Promise.resolve({ identities: `${ID}/${web.name}` }),
    "its certificate": async () => ({ serials: await serial() }),
  };
  for (const [kind, data] of Object.entries(kinds)) {
    await t.step(`the deny list names ${kind}`, async () => {
      await until(
        async () => await said(web, api) === 0,
        20_000,
        () => "it is not served before",
      );
      await using stream = web.startClient("send", api.ipv4 ?? "", PORT, "--every", "50");
      await stream.waitForEvent(({ event }) => event === "sent");
      await deny(lab, await data());
      await stream.waitForEvent(({ event }) => event === "failed", 10_000);
      assert.notEqual(await said(web, api), 0);
      await lab.remove("deny.json");
    });
  }

  await t.step("the registry names its client no more", async () => {
    const ca = await Authority.ofCluster(lab.directory, lab.temporary);
    const [mine, dialled] = [intruder.ipv4 ?? "", api.ipv4 ?? ""];
    const credential = await ca.issue({ uris: [`${ID}/intruder`], addresses: [mine] });
    await register(lab, intruder, `${ID}/intruder`);
    const from = lab.agent("node-b").log.length;
    const conversation = attack(intruder, dialled, TUNNEL_PORT, {
      credential,
      send: [openFrame({ port: PORT, client: mine, dialled })],
      more: ["--timeout", "90"],
    });
    await until(
      async () => (await lab.agent("node-b").enrolment(api)).traffic?.streamsOpen === 2,
      10_000,
      () => "the stream is not there",
    );
    await unregister(lab, intruder);
    const { end } = await conversation;
    assert.notEqual(end, "TimeoutError");
    const line = await lab.agent("node-b").waitForLog(
      ({ reason }) => reason === "peer_revoked",
      1_000,
      from,
    );
    assert.match(String(line.message), /does not name the client .* any more/);
  });

  await t.step("others have gone on", () => {
    const failed = bystander.stdout.all.filter((line) => line.includes('"failed"'));
    assert.deepEqual(failed, []);
  });
});

/** What a client ends with that says one line on a connection of its own. */
async function said(from: Pod, to: Pod): Promise<number> {
  return (await from.connect("send", to.ipv4 ?? "", PORT, "--count", "1")).code;
}

async function deny(lab: Lab, data: Record<string, string>): Promise<void> {
  const metadata = { name: "kube-gateway-deny", namespace: "kube-gateway" };
  await lab.write(
    "deny.json",
    JSON.stringify({ apiVersion: "v1", kind: "ConfigMap", metadata, data }),
  );
}
