/**
 * The promise: a new CA takes over from the old one while pods talk, and no connection fails; a
 * lost one costs seconds.
 */
import assert from "node:assert/strict";
import { newCa } from "../src/identity/new_ca.ts";
import { decodePem } from "../src/identity/pem.ts";
import { TRUST_BUNDLE_KEY } from "../src/identity/signing_names.ts";
import { REPOSITORY, RUN } from "./lab/agent.ts";
import { until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";
import { waitSecured } from "./lab/secured.ts";
import { BUNDLE, CA } from "./lab/signing.ts";

const PORT = 9000;
const CERTIFICATE_SECONDS = "12";

Deno.test("a CA is replaced under traffic", async () => {
  await using lab = await Lab.open({ cluster: "api" });
  const [web, api] = await lab.addPods([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "api", node: "node-b", annotation: "true" },
  ]);
  assert(web && api?.ipv4);
  const script = new URL("lab/quick_signer.ts", import.meta.url).pathname;
  const argv = [...RUN, script, await lab.api.signerKubeconfig()];
  lab.outside.spawn([...argv, CERTIFICATE_SECONDS], { cwd: REPOSITORY });
  const agents = await Promise.all(lab.nodes.map(({ name }) => lab.startAgent(name)));
  for (const pod of [web, api]) await lab.waitEnrolled(pod);
  const roots = async () => {
    const { data } = await lab.api.server.get<{ data: Record<string, string> }>(BUNDLE);
    return decodePem(data[TRUST_BUNDLE_KEY] ?? "", "CERTIFICATE").map((der) => der.toHex());
  };
  const [first] = await roots();
  await api.serve("hello", PORT);
  const talk = web.startClient("send", api.ipv4, PORT, "--every", "100", "--new-connection");

  const { key, certificate } = await newCa("cluster.local");
  const data = { "tls.crt": btoa(certificate), "tls.key": btoa(key) };
  await lab.api.server.patch(CA, { data });
  await until(async () => (await roots()).length === 2, 10_000, () => "no second root");
  await until(
    async () => {
      const now = await roots();
      return now.length === 1 && now[0] !== first;
    },
    60_000,
    () => `the old root stays: ${agents.map((agent) => agent.logTail(5)).join("\n")}`,
  );
  const renewed = agents[0]?.log.filter(({ message }) => message?.startsWith("renewed the cert"));
  assert(renewed?.length, "certificates were renewed meanwhile");
  const before = talk.events.length;
  await until(() => talk.events.length > before + 20, 10_000, () => "no more traffic");
  await talk.stop("SIGTERM");
  assert.deepEqual(talk.events.filter(({ event }) => event === "failed"), []);
});

Deno.test("CA and trust bundle are lost while no signer runs: pods take the next one's certificates", async () => {
  await using lab = await Lab.open({ cluster: "api" });
  const [web, api] = await lab.addPods([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "api", node: "node-b", annotation: "true" },
  ]);
  assert(web && api?.ipv4);
  const signer = await lab.startSigner();
  await Promise.all(lab.nodes.map(({ name }) => lab.startAgent(name)));
  for (const pod of [web, api]) await waitSecured(lab, pod, "True");
  await api.serve("echo", PORT);
  const { ipv4 } = api;
  const talks = async () => (await web.connect("echo", ipv4, PORT)).code === 0;
  assert.equal(await talks(), true);
  const serial = async () => (await lab.agent("node-b").enrolment(api)).certificate?.serial;
  const before = await serial();
  await signer.stop();
  for (const lost of [CA, BUNDLE]) await lab.api.server.delete(lost);
  await lab.startSigner();
  await until(
    async () => await serial() !== before && await talks(),
    30_000,
    () => lab.agent("node-b").logTail(),
  );
  for (const pod of [web, api]) await waitSecured(lab, pod, "True");
});
