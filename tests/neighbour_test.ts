/**
 * The promise: a container beside another in one pod cannot share the relay's listeners, nor take
 * their place while the agent is away, whoever it runs as, and so gets neither its neighbours'
 * plaintext nor what their peers send.
 */
import assert from "node:assert/strict";
import { OUTBOUND_PORT, TUNNEL_PORT } from "../src/constants.ts";
import { until } from "./lab/delay.ts";
import type { Pod } from "./lab/pod.ts";
import { openScene } from "./lab/scene.ts";

const PORT = 9000;
const JOIN = ["python3", "-B", "-S", `${import.meta.dirname}/lab/apps/join.py`];
const COOKIES = ["python3", "-B", "-S", `${import.meta.dirname}/lab/apps/cookies.py`];
const WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];

Deno.test("nobody in a pod joins the relay's listeners", async (t) => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  await api.serve("echo", PORT);

  await t.step("the program itself can: it shares what shares", async () => {
    const ends = await tried(lab.outside, JOIN, [`127.0.0.1/${OUTBOUND_PORT}`]);
    assert.deepEqual(ends, ["joined"]);
  });
  await t.step("uid 0 without a capability", () => refused(web, WITHOUT_CAPABILITIES));
  await t.step("root with all of them, under whatever uid", async () => {
    await refused(web, [], ["--uid", "0", "--uid", "1000", "--uid", "65534"]);
  });
  await t.step("after the agent was killed and is back", async () => {
    await lab.agent("node-a").kill();
    await lab.startAgent("node-a");
    await lab.waitEnrolled(web);
    await refused(web, WITHOUT_CAPABILITIES);
  });
  await t.step("while the agent is away, whoever takes the port is sent nothing", async () => {
    await lab.agent("node-a").kill();
    for (const [host, of] of [["127.0.0.1", api.ipv4], ["::1", api.ipv6]] as const) {
      const place = `${host}/${OUTBOUND_PORT}`;
      await using thief = web.spawn([...WITHOUT_CAPABILITIES, ...JOIN, "--hold", place]);
      await thief.waitForEvent(({ event }) => event === "listening");
      for (let attempt = 0; attempt < 5; attempt++) {
        const { code, result } = await web.connect("echo", of ?? "", PORT);
        assert.deepEqual([code, result.errno], [1, "ECONNREFUSED"]);
      }
      assert.deepEqual(thief.stdout.all.filter((line) => line.includes("stolen")), []);
      // The new agent takes another port then.
      await using _agent = await lab.startAgent("node-a");
      await lab.waitEnrolled(web);
      assert.equal((await web.connect("echo", of ?? "", PORT)).code, 0);
      assert.deepEqual(thief.stdout.all.filter((line) => line.includes("stolen")), []);
    }
    await lab.startAgent("node-a");
    await lab.waitEnrolled(web);
  });
  await t.step("and what shares nothing is the application's as before", async () => {
    assert.deepEqual(await tried(web, JOIN, [`127.0.0.77/${OUTBOUND_PORT}`]), ["joined"]);
    assert.equal((await web.connect("echo", api.ipv4 ?? "", PORT)).code, 0);
  });
});

Deno.test("a connection that waits for the relay is nobody else's, when the agent dies or the pod leaves", async () => {
  await using lab = await openScene([
    { name: "web", node: "node-a" },
    { name: "api", node: "node-b", annotation: "true" },
  ]);
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  await api.serve("echo", PORT);
  // So that few connections fill what the relay has not accepted, and the kernel sends the others'
  // SYN again.
  await web.run(["sysctl", "-w", "net.core.somaxconn=2"]);
  for (const end of ["the agent dies", "the pod leaves"]) {
    await web.annotate("true");
    await lab.waitEnrolled(web);
    const place = `127.0.0.1/${OUTBOUND_PORT}`;
    await using thief = web.spawn([...WITHOUT_CAPABILITIES, ...JOIN, "--hold", place]);
    await thief.waitForEvent(({ event }) => event === "waiting");
    const agent = lab.agent("node-a");
    agent.process.kill("SIGSTOP");
    await using victims = web.spawn(["python3", "-c", MANY, api.ipv4 ?? "", `${PORT}`]);
    await until(
      async () => {
        const { stdout } = await web.run(["ss", "-Htn", "state", "syn-sent"]);
        return stdout.split("\n").length > 20;
      },
      30_000,
      () => agent.logTail(),
    );
    if (end === "the agent dies") await agent.kill();
    else {
      await web.annotate(undefined);
      agent.process.kill("SIGCONT");
    }
    await thief.waitForEvent(({ event }) => event === "listening", 30_000);
    // After 1, 3 and 7 s a SYN is sent again.
    await victims.waitForEvent(({ event }) => event === "ended", 30_000);
    assert.deepEqual(thief.stdout.all.filter((line) => line.includes("stolen")), [], end);
    if (end === "the agent dies") await lab.startAgent("node-a");
  }
});

const MANY = `
import errno, json, selectors, socket, sys, time
ready = selectors.DefaultSelector()
for _ in range(60):
    s = socket.socket()
    s.setblocking(False)
    if s.connect_ex((sys.argv[1], int(sys.argv[2]))) == errno.EINPROGRESS:
        ready.register(s, selectors.EVENT_WRITE)
end = time.monotonic() + 8
while time.monotonic() < end:
    for key, _ in ready.select(0.2):
        ready.unregister(key.fileobj)
        try:
            key.fileobj.send(b"secret")
        except OSError:
            pass
print(json.dumps({"event": "ended"}), flush=True)
`;

Deno.test("a connection of which only its client knows (a SYN cookie) is nobody else's when the agent dies", async () => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  await api.serve("echo", PORT);
  await web.run(["sysctl", "-w", "net.core.somaxconn=8"]); // of listeners that are opened from now on
  await lab.agent("node-a").stop();
  for (let round = 0; round < 2; round++) {
    const agent = await lab.startAgent("node-a");
    await lab.waitEnrolled(web);
    const counted = async (name: string) => {
      const { stdout } = await web.run(["nstat", "-asz", name]);
      return Number(new RegExp(`${name} +(\\d+)`).exec(stdout)?.[1]);
    };
    const grows = async (name: string, by: number) => {
      const before = await counted(name);
      await until(
        async () => await counted(name) > before + by,
        10_000,
        () => `the relay's queue is not full: ${agent.logTail()}`,
      );
    };
    const relay = ["127.0.0.1", `${OUTBOUND_PORT}`];
    await using thief = web.spawn([...WITHOUT_CAPABILITIES, ...COOKIES, "thief", ...relay, "9"]);
    await using flood = web.spawn([...WITHOUT_CAPABILITIES, ...COOKIES, "flood", ...relay, "5"]);
    await using victim = web.spawn([...COOKIES, "victim", api.ipv4 ?? "", `${PORT}`, "9"]);
    await flood.waitForEvent(({ event }) => event === "flooding");
    await grows("TcpExtSyncookiesSent", 1_000);
    agent.process.kill("SIGSTOP"); // nobody accepts: a client's last ACK, and what it says, are dropped
    await grows("TcpExtListenOverflows", 100);
    await agent.kill();
    await thief.waitForEvent(({ event }) => event === "listening", 10_000);
    await thief.waitForEvent(({ event }) => event === "ended", 20_000);
    await victim.waitForEvent(({ event }) => event === "ended", 20_000);
    assert.deepEqual(thief.stdout.all.filter((line) => line.includes("stolen")), []);
  }
});

Deno.test("nobody in a pod is taken for the client of a relay that is no more", async () => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  const server = await api.serve("hello", PORT);
  await using stream = web.startClient("send", api.ipv4 ?? "", PORT, "--every", "50");
  await stream.waitForEvent(({ event }) => event === "sent");
  const { stdout } = await api.run(["ss", "-Htn", "state", "established"]);
  const sockets = new RegExp(`(127\\.128\\.[\\d.]+):(\\d+)\\s+${api.ipv4}:${PORT}`).exec(stdout);
  assert(sockets !== null, stdout);
  const [, address = "", port = ""] = sockets;
  await lab.agent("node-b").kill();
  const script = `
import socket, sys
s = socket.socket()
s.setsockopt(1, 2, 1)
s.bind((sys.argv[1], int(sys.argv[2])))
s.connect((sys.argv[3], ${PORT}))
s.sendall(b"who am I\\n")
s.recv(100)
`;
  const spoof = ["python3", "-c", script, address, port, api.ipv4 ?? ""];
  const said = await api.run([...WITHOUT_CAPABILITIES, ...spoof]);
  assert.equal(said.code, 0, said.stderr);
  const seen = await server.waitForEvent(({ text }) => text === "who am I");
  for (const end of [seen.accept, seen.getpeername]) {
    assert.equal(String((end as unknown[])[0]).replace("::ffff:", ""), address);
  }
});

/** Tries every address that may mean the listeners'. */
async function refused(pod: Pod, before: string[], more: string[] = []): Promise<void> {
  const places = [
    ...["127.0.0.1", "::1", "0.0.0.0", "::"].map((address) => `${address}/${OUTBOUND_PORT}`),
    ...[...pod.addresses, "0.0.0.0", "::"].map((address) => `${address}/${TUNNEL_PORT}`),
  ];
  const ends = await tried(pod, [...before, ...JOIN, ...more], places);
  const users = Math.max(1, more.length / 2);
  assert.deepEqual(ends, Array(places.length * users).fill("Address already in use"));
}

async function tried(
  place: Pick<Pod, "run">,
  program: string[],
  places: string[],
): Promise<unknown[]> {
  const { code, events, stderr } = await place.run([...program, ...places]);
  assert.equal(code, 0, stderr);
  return events.map(({ end }) => end);
}
