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

/**
 * Answers and ends at once. Who says "d" is never read any further, who says anything else until it
 * ends.
 */
const SERVER = `
import socket, threading
def serve(sock):
    said = sock.recv(1); sock.sendall(said); sock.shutdown(socket.SHUT_WR)
    threading.Event().wait() if said == b"d" else sock.recv(1)
listener = socket.create_server(("::", ${PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
print('{"event": "listening"}', flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
`;

/**
 * Streams that end when their server has and does not read them: of many sizes, so that some fit
 * into what the kernel buffers on the way, but not into its last part. Then others, and how long
 * the slowest of them took.
 */
const CLIENT = `
import socket, sys, threading, time
def ask(said, more=b""):
    with socket.create_connection((sys.argv[1], ${PORT}), timeout=30) as sock:
        sock.sendall(said)
        assert sock.recv(9) == said and sock.recv(9) == b""
        sock.sendall(more)
for step in range(16):
    threading.Thread(target=ask, args=(b"d", bytes(int(400_000 * 1.2**step))), daemon=True).start()
time.sleep(2)
slowest = 0
for _ in range(16):
    began = time.monotonic()
    ask(b"e")
    slowest = max(slowest, time.monotonic() - began)
print(slowest)
`;

Deno.test("a stream does not wait behind one whose server does not read to the end", async () => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  const server = api.spawn(["python3", "-c", SERVER]);
  await server.waitForEvent(({ event }) => event === "listening");
  const { code, stdout, stderr } = await web.run(["python3", "-c", CLIENT, api.ipv4!]);
  assert.equal(code, 0, `${stderr}\n${lab.agent("node-a").logTail(5)}`);
  console.log(`the slowest stream took ${Number(stdout).toFixed(1)} s`);
  assert.ok(Number(stdout) < 8, `${stdout} s`);
});
