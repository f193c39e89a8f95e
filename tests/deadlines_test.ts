import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";
import { cpuSeconds } from "./lab/usage.ts";

/**
 * What a raw TCP client does: connects, sends `first`, and says after how many seconds it was cut
 * off.
 */
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

/**
 * The first bytes of a TLS record that announces a handshake message of 512 bytes, and nothing of
 * it.
 */
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

  // The registry names them a moment later, and could not be written any more then.
  await until(
    async () => {
      await client.connect("echo", server.ipv4 ?? "", 9000);
      return ((await agent.enrolment(client)).traffic?.streams ?? 0) > 0;
    },
    10_000,
    () => agent.logTail(),
  );
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

Deno.test("idle connections to the tunnel's and the metrics' port keep nobody out of either", async (t) => {
  await using lab = await Lab.open({ nodes: ["node-a"] });
  const [client, server, stranger] = await lab.addPods([
    { name: "client", node: "node-a", annotation: "true" },
    { name: "server", node: "node-a", annotation: "true" },
    { name: "stranger", node: "node-a" },
  ]);
  assert(client && server?.ipv4 && stranger);
  const agent = await lab.startAgent("node-a", { args: ["--metrics-address", `:${METRICS}`] });
  for (const pod of [client, server]) await lab.waitEnrolled(pod);
  await server.serve("echo", 9000);
  const node = lab.node("node-a");
  const echo = async () => (await client.connect("echo", server.ipv4 ?? "", 9000)).code === 0;
  // While thousands come, any of those that have asked nothing yet may have to go: it is hardly
  // ever the honest one.
  const get = async (path: string) => {
    const url = `http://${node.ipv4}:${METRICS}${path}`;
    for (let attempt = 1;; attempt++) {
      const { stdout, stderr } = await stranger.run(["python3", "-c", GET, url], {
        timeoutMs: 20_000,
      });
      if (stdout !== "" || attempt === 3) return stdout || stderr;
    }
  };
  const floods = ([[server.ipv4, TUNNEL_PORT], [node.ipv4, METRICS]] as const).map(([host, port]) =>
    stranger.spawn([
      ...["python3", "-B", "-S", `${import.meta.dirname}/lab/apps/flood.py`, "--until", "tcp"],
      ...["--host", host, "--port", `${port}`, "--connections", "5000", "--deadline", "5"],
    ])
  );

  await t.step("while they come", async () => {
    assert.match(await get("/metrics"), /^200 .*kube_gateway_/s);
    assert.match(await get("/healthz"), /^200 ok/);
    assert.equal(await echo(), true);
    assert.equal((await agent.status()).node, "node-a");
  });
  await t.step("when all have come", async () => {
    for (const flood of floods) await flood.waitForEvent(({ event }) => event === "there", 60_000);
    assert.match(await get("/metrics"), /^200 .*kube_gateway_/s);
    assert.equal(await echo(), true);
  });
  await t.step("when there are no descriptors at all, and when there are again", async () => {
    const limit = (descriptors: number) =>
      node.run(["prlimit", `--pid=${agent.pid}`, `--nofile=${descriptors}:20000`]);
    await limit(3);
    const waiting = get("/healthz");
    await agent.waitForLog(({ message }) =>
      /^accepting pauses: .*EMFILE|os error 24/.test(`${message}`)
    );
    const asked = agent.status();
    await limit(20_000);
    assert.match(await waiting, /^200 ok/);
    assert.equal((await asked).node, "node-a");
    await until(echo, 10_000, () => `connections still fail:\n${agent.logTail()}`);
  });
  await t.step("all of them are cut off", async () => {
    const ends = floods.map((flood) => flood.waitForEvent(({ event }) => event === "gone", 60_000));
    const [, metrics] = await Promise.all(ends);
    assert(Number(metrics?.held) <= 1_000, `${metrics?.held} had the whole time`);
    assert(Number(metrics?.longest) < 12, `one lasted ${metrics?.longest} s`);
  });
});

Deno.test("an agent that inotify has no room for finds pods all the same, says so, and recovers", async () => {
  await using lab = await Lab.open({ nodes: ["node-a"] });
  const full = `${lab.temporary}/inotify-full`;
  const library = await inotifyThatCanBeFull(lab.temporary);
  await Deno.writeTextFile(full, "");
  const agent = await lab.startAgent("node-a", {
    env: { LD_PRELOAD: library, INOTIFY_FULL: full },
  });
  const pod = await lab.addPod({ name: "pod", node: "node-a", annotation: "true" });
  await lab.waitEnrolled(pod);
  const saysSo = async () =>
    (await agent.status()).problems.some(({ message }) => /inotify/.test(message));
  assert.equal(await saysSo(), true);
  await Deno.remove(full);
  await until(async () => !await saysSo(), 15_000, () => "still says so");
});

/**
 * As when root's instances are used up (fs.inotify.max_user_instances), for one process and while a
 * file is there.
 */
async function inotifyThatCanBeFull(directory: string): Promise<string> {
  const library = `${directory}/inotify.so`;
  const source = `
    #include <errno.h>
    #include <stdlib.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    int inotify_init1(int flags) {
      if (access(getenv("INOTIFY_FULL"), F_OK) == 0) { errno = EMFILE; return -1; }
      return syscall(SYS_inotify_init1, flags);
    }
    int inotify_init(void) { return inotify_init1(0); }`;
  await Deno.writeTextFile(`${directory}/inotify.c`, source);
  const { code, stderr } = await new Deno.Command("clang", {
    args: ["-shared", "-fPIC", "-o", library, `${directory}/inotify.c`],
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return library;
}

const METRICS = 18_080;

/** Prints the status and the body of what a URL answers. */
const GET = `
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=15) as answer:
    print(answer.status, answer.read().decode())
`;
