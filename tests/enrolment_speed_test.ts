/**
 * The promise: annotating running pods, 30 at once, encrypts them at once, certificates included.
 * The aim is a p95 of 300 ms; the limit here is one that a machine keeps that has ten times as much
 * to do, or to wait for.
 */
import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { delay, until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";

const PODS = 30;
const ROUNDS = 5;
const PORT = 9000;
const LIMIT_MILLISECONDS = 15_000;

Deno.test("from the annotation to the first encrypted connection, 30 running pods at once", async () => {
  await using lab = await Lab.open({ cluster: "api" });
  const [server, ...clients] = await lab.addPods([
    { name: "server", node: "node-b", annotation: "true" },
    ...Array.from({ length: PODS }, (_, index) => ({ name: `client-${index}`, node: "node-a" })),
  ]);
  assert(server?.ipv4);
  await lab.startSigner();
  await Promise.all(lab.nodes.map(({ name }) => lab.startAgent(name)));
  await lab.waitEnrolled(server);
  await server.serve("hello", PORT);
  const encrypted = new Map<string, number>();
  await using _watch = await lab.watchLink("node-a", (packet) => {
    const { sourceAddress, destinationPort, payload, time } = packet;
    // The first handshake's data are the first sign of a tunnel.
    if (destinationPort !== TUNNEL_PORT || payload.length === 0) return;
    if (!encrypted.has(sourceAddress)) encrypted.set(sourceAddress, time);
  });

  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    // All are annotated; some speak, since thirty that do so all the time would be most of what is
    // measured.
    const speakers = clients.filter((_, index) => index % ROUNDS === round);
    const processes = speakers.map((client) =>
      client.startClient("send", server.ipv4 ?? "", PORT, "--every", "40", "--new-connection")
    );
    await delay(1_500); // what the round before has left to be told is told
    encrypted.clear();
    const annotated = new Map<string, number>();
    await Promise.all(clients.map(async (client) => {
      annotated.set(client.ipv4 ?? "", Date.now());
      await client.annotate("true");
    }));
    await until(
      () => speakers.every(({ ipv4 = "" }) => encrypted.has(ipv4)),
      2 * LIMIT_MILLISECONDS,
      () => `only ${[...encrypted.keys()]} are encrypted: ${lab.agent("node-a").logTail()}`,
    );
    for (const { ipv4 = "" } of speakers) {
      times.push(Math.round((encrypted.get(ipv4) ?? NaN) - (annotated.get(ipv4) ?? NaN)));
    }
    for (const process of processes) await process.stop();
    for (const client of clients) await client.annotate(undefined);
    for (const client of clients) await lab.waitPlain(client);
  }
  times.sort((a, b) => a - b);
  const p95 = times[Math.ceil(PODS * 0.95) - 1] ?? NaN;
  const p50 = times[PODS / 2] ?? NaN;
  console.log(`annotation to first encrypted connection: p50 ${p50} ms, p95 ${p95} ms`);
  assert(p95 <= LIMIT_MILLISECONDS, `p95 is ${p95} ms of ${times}`);
});
