/**
 * The promise: however long an annotation is, it is refused with a short reason, and harms nothing
 * else.
 */
import assert from "node:assert/strict";
import { ANNOTATION } from "../src/constants.ts";
import type { Agent } from "./lab/agent.ts";
import { until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";
import type { Pod } from "./lab/pod.ts";
import { openScene } from "./lab/scene.ts";
import { isBack, quiet } from "./lab/usage.ts";

const PORT = 9000;
const MEGABYTE = 1 << 20;
/**
 * What an API server takes of all annotations of an object together
 * (validation.TotalAnnotationSizeLimitB).
 */
const API_SERVER_LIMIT = 256 * 1024;
/** Of a reason, and of a line of the log. */
const LONGEST_REASON = 500;
const LONGEST_LINE = 2_000;

const LONG: Record<string, (bytes: number) => string> = {
  "one letter": (bytes) => "x".repeat(bytes),
  "true, and then spaces": (bytes) => "true".padEnd(bytes),
  "spaces, and then true": (bytes) => "true".padStart(bytes),
  "true, again and again, on lines of their own": (bytes) => "true\n".repeat(bytes / 5),
  "quotes, which take two bytes as JSON": (bytes) => '"'.repeat(bytes),
  "control characters, which take six": (bytes) => "\u0001".repeat(bytes / 6),
  "emoji, which are two units of text each": (bytes) => "\u{1f512}".repeat(bytes / 4),
};

Deno.test("annotations of a megabyte are refused, and what was good stays", async (t) => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  const agents = lab.nodes.map(({ name }) => lab.agent(name));
  await api.serve("echo", PORT);
  const serials = await serialsOf(agents);
  const harmed = () => isUnharmed(web, api, agents, serials);
  const odd = await lab.addPod({ name: "odd", node: "node-a" });
  await harmed();
  const atRest = await Promise.all(agents.map(quiet));

  for (const [name, make] of Object.entries(LONG)) {
    await t.step(name, async () => {
      await odd.annotate(make(MEGABYTE));
      await waitRefused(lab.agent("node-a"), odd);
      await harmed();
      await odd.annotate(undefined);
      await lab.waitPlain(odd);
    });
  }

  await t.step("others' annotations do not matter, however long and many", async () => {
    await odd.annotate("true");
    const file = `${lab.directory}/${odd.fileName}`;
    const before = `  annotations:\n`;
    const others = [
      `    example.com/notes: ${"x".repeat(MEGABYTE)}\n`,
      ...Array.from({ length: 1_000 }, (_, number) => `    example.com/n${number}: "1"\n`),
    ];
    const text = (await Deno.readTextFile(file)).replace(before, before + others.join(""));
    await lab.write(odd.fileName, text);
    await lab.waitEnrolled(odd);
    assert.equal((await odd.connect("echo", api.ipv4!, PORT)).code, 0);
    await odd.annotate(undefined);
    await lab.waitPlain(odd);
    await harmed();
  });

  await t.step("none of it is kept", async () => {
    await Promise.all(agents.map(quiet));
    // A few of the files, until V8 collects.
    await isBack(agents, atRest, 40_000);
    assertShortLines(agents);
  });
});

Deno.test("the same on an API server, of a pod and of a namespace", async (t) => {
  await using lab = await Lab.open({ cluster: "api" });
  const [web, api, odd, heir] = await lab.addPods([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "api", node: "node-b", annotation: "true" },
    { name: "odd", node: "node-a" },
    { name: "heir", node: "node-a", namespace: "odd" },
  ]);
  assert(web && api && odd && heir);
  await lab.startSigner();
  const agents = await Promise.all(lab.nodes.map(({ name }) => lab.startAgent(name)));
  for (const pod of [web, api]) await lab.waitEnrolled(pod);
  await api.serve("echo", PORT);
  const serials = await serialsOf(agents);
  const namespace = { resource: "namespaces", name: "odd" };
  const longest = LONG["one letter"]!(API_SERVER_LIMIT - ANNOTATION.length);

  await t.step("a pod's", async () => {
    await odd.annotate(longest);
    await waitRefused(lab.agent("node-a"), odd);
    await waitSecured(lab, odd);
  });

  await t.step("a namespace's", async () => {
    await lab.api.server.annotate(namespace, ANNOTATION, longest);
    await waitRefused(lab.agent("node-a"), heir);
    await waitSecured(lab, heir);
  });

  await isUnharmed(web, api, agents, serials);
  assertShortLines(agents);
});

/** Waits until the pod's agent refuses it, for a reason that a person can read. */
async function waitRefused(agent: Agent, pod: Pod): Promise<void> {
  const found = async () => (await agent.status()).enrolments.find(({ uid }) => uid === pod.uid);
  await until(
    async () => (await found())?.state === "refused",
    10_000,
    () => `${pod.key} is not refused`,
  );
  const { reason = "" } = (await found())!;
  assert.ok(reason.includes(`${ANNOTATION} must be "true" or "false", not "`), reason);
  assert.ok(reason.length < LONGEST_REASON, `${reason.length} characters`);
}

/** Waits until Kubernetes says so too, as briefly. */
async function waitSecured(lab: Lab, pod: Pod): Promise<void> {
  let message = "";
  await until(
    async () => {
      const condition = await lab.api.secured(pod);
      message = condition?.message ?? "";
      return condition?.reason === "Refused";
    },
    10_000,
    () => `${pod.key} is not said to be refused`,
  );
  assert.ok(message.includes('must be "true"') && message.length < LONGEST_REASON, message);
}

function serialsOf(agents: readonly Agent[]): Promise<(string | undefined)[][]> {
  const good = async (agent: Agent) =>
    (await agent.status()).enrolments.filter(({ state }) => state === "active")
      .map(({ certificate }) => certificate?.serial);
  return Promise.all(agents.map(good));
}

/** The same pods are enrolled, by the same certificates, and bytes still pass. */
async function isUnharmed(
  web: Pod,
  api: Pod,
  agents: readonly Agent[],
  serials: (string | undefined)[][],
): Promise<void> {
  assert.deepEqual(await serialsOf(agents), serials);
  for (const address of api.addresses) {
    assert.equal((await web.connect("echo", address, PORT)).code, 0);
  }
}

function assertShortLines(agents: readonly Agent[]): void {
  for (const agent of agents) {
    const longest = Math.max(...agent.process.stderr.all.map(({ length }) => length));
    assert.ok(longest < LONGEST_LINE, `a line of ${longest} characters`);
  }
}
