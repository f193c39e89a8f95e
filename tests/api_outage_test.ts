/**
 * The promise: without an API server enrolled pods go on, the agent spares it, and when it is back,
 * certificates are renewed before they expire and what has changed meanwhile is noticed.
 */
import assert from "node:assert/strict";
import { delay, until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";

const PORT = 9000;
const LIFETIME_SECONDS = 40;
/** From well before the renewals (18 to 22 s) to after them. */
const OUTAGE = { from: 5_000, until: 25_000 };
const MAX_REQUESTS_A_SECOND = 5;

Deno.test("an API server that is away over the renewal of ten pods' certificates", async () => {
  await using lab = await Lab.open({ cluster: "api", nodes: ["node-a"] });
  const pods = await lab.addPods(
    Array.from({ length: 10 }, (_, index) => ({
      name: `pod-${index}`,
      node: "node-a",
      annotation: "true",
    })),
  );
  const [client, server, leaving] = pods;
  assert(client && server?.ipv4 && leaving);
  const lifetime = ["--cert-ttl", `${LIFETIME_SECONDS}`];
  const signer = await lab.startSigner({ args: lifetime });
  const agent = await lab.startAgent("node-a");
  for (const pod of pods) await lab.waitEnrolled(pod);
  const began = performance.now();
  const at = (milliseconds: number) => delay(began + milliseconds - performance.now());
  const serials = async () =>
    new Map(
      (await agent.status()).enrolments.map(({ pod, certificate }) => [pod, certificate?.serial]),
    );
  const first = await serials();
  await server.serve("hello", PORT);
  const talk = client.connect("send", server.ipv4, PORT, ...TALK);

  await at(OUTAGE.from);
  await signer.stop("SIGTERM");
  await lab.api.server.kill();
  const counter = await lab.api.server.countConnectionsWhileDown();
  await at(OUTAGE.until - 1_000);
  assert.deepEqual(await serials(), first);
  const { silentSeconds, enrolments } = await agent.status();
  assert(Number(silentSeconds) >= 15, `${silentSeconds} s`);
  assert(enrolments.every(({ state }) => state === "active"));
  await counter.stop();
  assert(counter.connections.length > 10, "the agent tries to reach it");
  const most = counter.most(1_000);
  assert(most <= MAX_REQUESTS_A_SECOND, `${most} connections within a second`);

  await lab.api.server.restart();
  await leaving.annotate(undefined);
  await lab.startSigner({ args: lifetime });
  await until(
    async () => {
      const now = await serials();
      return [...now].every(([pod, serial]) => pod === leaving.key || serial !== first.get(pod));
    },
    10_000,
    () => `certificates were not renewed: ${agent.logTail()}`,
  );
  assert(Number((await agent.status()).silentSeconds) <= 2);
  assert(performance.now() - began < LIFETIME_SECONDS * 1_000, "before the old ones have expired");
  await lab.waitPlain(leaving);
  const { code, stderr, result } = await talk;
  assert.equal(code, 0, `a connection failed: ${stderr} ${JSON.stringify(result)}`);
});

/** A new connection four times a second, for longer than all of it takes. */
const TALK = ["--every", "250", "--count", "140", "--new-connection"];
