/**
 * The promise: a tunnel that waits for its next stream is gone as soon as it must not carry one.
 */
import assert from "node:assert/strict";
import { newCa } from "../src/identity/new_ca.ts";
import { delay, until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";
import type { Pod } from "./lab/pod.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";
import { CA } from "./lab/signing.ts";

const PORT = 9000;
/** Much less than the ten seconds that a tunnel may wait. */
const AT_ONCE = 3_000;

Deno.test("idle tunnels are used again, and end with the peer, with the certificate, with the pod", async (t) => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  await api.serve("echo", PORT);
  const talk = async () => {
    const { code, stderr } = await web.connect("echo", api.ipv4!, PORT);
    assert.equal(code, 0, stderr);
  };
  const tunnels = async (pod: Pod) =>
    (await lab.agent(pod.node.name).enrolment(pod)).traffic?.tunnelsOpen ?? 0;

  await t.step("one tunnel carries ten streams", async () => {
    await until(async () => (await talk(), await tunnels(web)) > 0, 10_000, () => "no idle tunnel");
    const before = await handshakes(lab, web);
    for (let count = 0; count < 10; count++) await talk();
    // Each of two workers may have had to make its own.
    assert.ok(await handshakes(lab, web) - before <= 1);
  });

  await t.step("the peer is withdrawn", async () => {
    await talk();
    await api.annotate(undefined);
    await until(async () => await tunnels(web) === 0, AT_ONCE, () => "a tunnel to no peer");
    await lab.waitPlain(api);
    await api.annotate("true");
    await lab.waitEnrolled(api);
  });

  await t.step("the peer is another pod at the same address", async () => {
    await talk();
    assert.ok(await tunnels(web) > 0);
    const host = Number(api.ipv4!.split(".").at(-1));
    await api.remove();
    const next = await lab.addPod({
      ...{ name: "api", node: "node-b", annotation: "true", host },
      serviceAccount: "other",
    });
    await lab.waitEnrolled(next);
    await until(async () => await tunnels(web) === 0, AT_ONCE, () => "a tunnel to a gone pod");
    await next.serve("echo", PORT);
    const { code } = await web.connect("echo", next.ipv4!, PORT);
    assert.equal(code, 0);
  });

  await t.step("nothing is used twice where nothing may be", async () => {
    await lab.agent("node-a").stop();
    await lab.startAgent("node-a", { args: ["--tunnel-idle", "0"] });
    await lab.waitEnrolled(web);
    for (let count = 0; count < 5; count++) {
      assert.equal((await web.connect("echo", api.ipv4!, PORT)).code, 0);
    }
    await delay(200);
    assert.deepEqual([await handshakes(lab, web), await tunnels(web)], [5, 0]);
  });
});

Deno.test("tunnels made with a certificate of before are not used after its renewal", async () => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  for (const { name } of lab.nodes) {
    await lab.agent(name).stop();
    await lab.startAgent(name, { args: ["--cert-ttl", "12"] }); // renewed after some 6 s
  }
  await Promise.all([web, api].map((pod) => lab.waitEnrolled(pod)));
  await api.serve("echo", PORT);
  const serial = async () => (await lab.agent("node-a").enrolment(web)).certificate?.serial;
  const tunnels = async () => (await lab.agent("node-a").enrolment(web)).traffic?.tunnelsOpen ?? 0;
  const first = await serial();
  for (let round = 0; await serial() === first; round++) {
    assert.ok(round < 20, "never renewed");
    assert.equal((await web.connect("echo", api.ipv4!, PORT)).code, 0);
    const idle = await tunnels();
    if (await serial() === first) assert.ok(idle > 0);
    for (let look = 0; look < 20 && await serial() === first; look++) await delay(50);
  }
  await until(async () => await tunnels() === 0, 1_000, () => "a tunnel of before the renewal");
});

Deno.test("tunnels made under a trust bundle of before are not used after it has changed", async () => {
  await using lab = await Lab.open({ cluster: "api" });
  const [web, api] = await lab.addPods([...WEB_AND_API]);
  assert(web && api?.ipv4);
  await lab.startSigner();
  // Longer than the test waits: they do not end by themselves.
  for (const { name } of lab.nodes) await lab.startAgent(name, { args: ["--tunnel-idle", "60"] });
  for (const pod of [web, api]) await lab.waitEnrolled(pod);
  await api.serve("echo", PORT);
  const enrolment = () => lab.agent("node-a").enrolment(web);
  const talk = async () => assert.equal((await web.connect("echo", api.ipv4!, PORT)).code, 0);
  await talk();
  const { certificate, traffic } = await enrolment();
  assert.ok(traffic?.tunnelsOpen);

  const next = await newCa("cluster.local");
  const data = { "tls.crt": btoa(next.certificate), "tls.key": btoa(next.key) };
  await lab.api.server.patch(CA, { data }); // another root in the bundle, long before it signs
  const open = async () => (await enrolment()).traffic?.tunnelsOpen;
  await until(async () => await open() === 0, 10_000, () => "a tunnel of before");
  assert.equal((await enrolment()).certificate?.serial, certificate?.serial, "no renewal did it");
  await talk();
  assert.equal(await handshakes(lab, web), (traffic.handshakes ?? 0) + 1);
});

async function handshakes(lab: Lab, pod: Pod): Promise<number> {
  return (await lab.agent(pod.node.name).enrolment(pod)).traffic?.handshakes ?? 0;
}
