/** The promise: tunnels are used again, and no stream ever notices the ones before it. */
import assert from "node:assert/strict";
import type { Pod } from "./lab/pod.ts";
import type { AppEvent } from "./lab/process.ts";
import { openScene } from "./lab/scene.ts";
import { isBack, quiet } from "./lab/usage.ts";

const PORT = 9000;
const STREAMS = 100_000;
const CLIENTS = 2;
/** At once, of one client: fewer than a worker keeps tunnels for. */
const CONCURRENCY = 24;
/** How many clients are killed in mid-stream meanwhile. */
const KILLS = 20;
/** Each client numbers its streams from another multiple of this. */
const NUMBERS = 1_000_000;

Deno.test("100,000 streams that end in every way: no byte of one in another, nothing left behind", async () => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  const agents = lab.nodes.map(({ name }) => lab.agent(name));
  // What waits a minute in TIME_WAIT makes the kernel search long for a free port.
  for (const pod of [web, api]) await pod.run(["sysctl", "-qw", ...FEW_TIME_WAITS]);
  const server = api.spawn([...program("server"), "--port", `${PORT}`], { stdin: true });
  await server.waitForEvent(({ event }) => event === "listening");
  const run = async (seed: number, streams: number) => {
    const { events, stderr } = await web.run(client(api, seed, streams), { timeoutMs: 300_000 });
    return check(events.at(-1) ?? { stderr }, streams);
  };
  await run(0, 2_000); // warm: code, buffers, a heap that has found its size
  const atRest = await Promise.all(agents.map(quiet));
  const began = performance.now();

  const clients = Array.from(
    { length: CLIENTS },
    (_, index) => run(index + 1, STREAMS / CLIENTS),
  );
  for (let index = 0; index < KILLS; index++) {
    const victim = web.spawn([...client(api, 10 + index, NUMBERS), "--killed"]);
    await victim.waitForEvent(({ event }) => event === "complete", 20_000);
    victim.kill();
    await victim.exited;
  }
  const ends = await Promise.all(clients);
  const seconds = (performance.now() - began) / 1000;

  await server.closeInput();
  const seen = await server.waitForEvent(({ event }) => event === "seen");
  assert.deepEqual([seen.faults, seen.open], [{}, 0], JSON.stringify(seen));
  const sum = (name: string) => ends.reduce((sum, each) => sum + (each[name] ?? 0), 0);
  for (const way of ["ends", "server-first", "client-reset", "server-reset", "late-reset"]) {
    assert.ok(sum(way) > STREAMS / 100, `${way}: ${sum(way)}`);
  }
  const { traffic } = await lab.agent("node-a").enrolment(web);
  const { streams, handshakes } = traffic!;
  console.log(
    `${Math.round(STREAMS / seconds)} streams/s, ${handshakes} handshakes for ${streams}`,
  );
  assert.ok(streams > STREAMS && handshakes < streams / 8, `${handshakes} for ${streams} streams`);

  await Promise.all(agents.map(quiet));
  // The heap's size varies: a leak of 400 bytes for each stream would not fit into this.
  await isBack(agents, atRest, 40_000);
});

const FEW_TIME_WAITS = [
  "net.ipv4.tcp_max_tw_buckets=4096",
  "net.ipv4.ip_local_port_range=10000 65535",
];

function program(name: "client" | "server"): string[] {
  return ["python3", "-B", "-S", `${import.meta.dirname}/lab/apps/streams_${name}.py`];
}

function client({ addresses }: Pod, seed: number, streams: number): string[] {
  return [
    ...[...program("client"), "--port", `${PORT}`, "--concurrency", `${CONCURRENCY}`],
    ...addresses.flatMap((address) => ["--host", address]),
    ...["--streams", `${streams}`, "--first", `${seed * NUMBERS}`, "--seed", `${seed}`],
  ];
}

/** How many streams ended in which way, when all of them ended as they should. */
function check(result: AppEvent, streams: number): Record<string, number> {
  const ends = (result.ends ?? {}) as Record<string, number>;
  const total = Object.values(ends).reduce((sum, count) => sum + count, 0);
  assert.deepEqual([result.faults, total], [{}, streams], JSON.stringify(result));
  return ends;
}
