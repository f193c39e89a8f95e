import assert from "node:assert/strict";
import { until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";
import { cpuSeconds } from "./lab/usage.ts";

/** What a raw TCP client does: connects, sends `first`, and says after how many seconds it was cut off. */
const RAW_CLIENT = `
import socket, sys, time
host, port, first = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
s = socket.create_connection((host, port)); s.settimeout(30)
begin = time.monotonic(); s.sendall(first)
try:
    while s.recv(4096): pass
except ConnectionResetError: pass
print(time.monotonic() - begin)
`;

/** The first bytes of a TLS record that announces a handshake message of 512 bytes, and nothing of it. */
const PARTIAL_RECORD = "1603010200";

Deno.test("a client that does not finish its handshake is cut off after 10 s, and says why", async () => {
  await using lab = await Lab.open({ nodes: ["node-a"] });
  const [pod, stranger] = await lab.addPods([
    { name: "pod", node: "node-a", annotation: "true" },
    { name: "stranger", node: "node-a" },
  ]);
  assert(pod?.ipv4 && stranger);
  const agent = await lab.startAgent("node-a");
  await lab.waitEnrolled(pod);
  const clients = ["", PARTIAL_RECORD].map((first) =>
    stranger.run(["python3", "-c", RAW_CLIENT, pod.ipv4 ?? "", "18443", first], {
      timeoutMs: 30_000,
    })
  );
  for (const client of clients) {
    const seconds = Number((await client).stdout);
    assert(seconds > 9 && seconds < 13, `cut off after ${seconds} s`);
  }
  await agent.waitForLog(({ reason }) => reason === "deadline");
});

Deno.test("an agent without descriptors left rests instead of spinning, and goes on when it has some", async () => {
  await using lab = await Lab.open({ nodes: ["node-a"] });
  const [client, server] = await lab.addPods([
    { name: "client", node: "node-a", annotation: "true" },
    { name: "server", node: "node-a", annotation: "true" },
  ]);
  assert(client && server?.ipv4);
  const agent = await lab.startAgent("node-a");
  for (const pod of [client, server]) await lab.waitEnrolled(pod);
  await server.serve("echo", 9000);
  const limit = (descriptors: number) =>
    lab.node("node-a").run(["prlimit", `--pid=${agent.pid}`, `--nofile=${descriptors}:20000`]);

  await limit(3); // not one more
  const waiting = client.startClient("echo", server.ipv4, 9000, "--timeout", "4");
  await agent.waitForLog(({ reason }) => reason === "exhausted");
  const [began, used] = [performance.now(), cpuSeconds(agent.pid)];
  await waiting.exited;
  const seconds = (performance.now() - began) / 1000;
  assert(seconds > 2, `the connection was not held: it ended after ${seconds} s`);
  const busy = (cpuSeconds(agent.pid) - used) / seconds;
  assert(busy < 0.5, `used ${busy} of a core while it could accept nothing`);

  await limit(20_000);
  const echo = async () => (await client.connect("echo", server.ipv4 ?? "", 9000)).code === 0;
  const states = (await agent.status()).enrolments.map(({ state }) => state);
  assert.deepEqual(states, ["active", "active"], "a shortage must not un-enrol anybody");
  await until(echo, 10_000, () => `connections still fail:\n${agent.logTail()}`);
});
