import assert from "node:assert/strict";
import { delay } from "./delay.ts";
import { Lab } from "./lab.ts";
import type { TcpPacket } from "./pcap.ts";
import { removeTraces } from "./sweep.ts";

const CANARY = "canary-7f3a9c-canary";

async function openWithPods() {
  const lab = await Lab.open();
  const [web, api] = await lab.addPods([
    { name: "web", node: "node-a" },
    { name: "api", node: "node-b", layout: "systemd" },
  ]);
  return { lab, web: web!, api: api! };
}

Deno.test("pods on two nodes reach each other in both families, mapped and bound", async () => {
  const { lab, web, api } = await openWithPods();
  await using _ = lab;
  await api.serve("peer", 8080);
  for (const [host, mine] of [[api.ipv4!, web.ipv4!], [api.ipv6!, web.ipv6!]] as const) {
    const { result, code } = await web.connect("peer", host, 8080, "--bind", mine);
    assert.equal(code, 0);
    assert.deepEqual(result.getpeername, [host, 8080]);
    assert.deepEqual(result.soPeername, [host, 8080]);
    const server = result.server as { accept: unknown[] };
    assert.equal(String(server.accept[0]).replace("::ffff:", ""), mine);
  }
  const { result } = await web.connect("peer", api.ipv4!, 8080, "--mapped");
  assert.deepEqual(result.getpeername, [`::ffff:${api.ipv4}`, 8080]);
});

Deno.test("pods, nodes and the outside reach a pod", async () => {
  const { lab, web, api } = await openWithPods();
  await using _ = lab;
  const neighbour = await lab.addPod({ name: "neighbour", node: "node-b" });
  await api.serve("echo", 8080);
  for (const place of [web, neighbour, lab.node("node-a"), lab.node("node-b"), lab.outside]) {
    for (const host of api.addresses) {
      const { code, stdout } = await place.connect("echo", host, 8080);
      assert.equal(code, 0, `${place.netns} to ${host}: ${stdout}`);
    }
  }
});

Deno.test("processes start in their pod's cgroup and namespace", async () => {
  const { lab, web, api } = await openWithPods();
  await using _ = lab;
  for (const pod of [web, api]) {
    const { stdout } = await pod.run(["sh", "-c", "cat /proc/self/cgroup; ip -o -4 addr"]);
    assert.ok(pod.processCgroup.endsWith(stdout.match(/^0::(.*)$/m)![1]!));
    assert.ok(stdout.includes(pod.ipv4!));
    const sandbox = await Deno.readTextFile(`${pod.sandboxCgroup}/cgroup.procs`);
    assert.equal(sandbox.trim(), String(pod.sandboxPid));
  }
});

Deno.test("a capture finds a canary that passes in clear, also when it is split", async () => {
  const { lab, web, api } = await openWithPods();
  await using _ = lab;
  await api.serve("echo", 8080);
  const live: TcpPacket[] = [];
  await using _watch = await lab.watchLink("node-b", (packet) => live.push(packet));
  await using onLink = await lab.captureNodeLink("node-a");
  await using onVeth = await lab.captureVeth(api, { filter: "tcp and dst port 8080" });
  for (const host of api.addresses) {
    assert.equal((await web.connect("echo", host, 8080, "--text", CANARY)).code, 0);
  }
  const split = "import socket,time;s=socket.create_connection(('" + api.ipv4 + "',8080));" +
    "s.setsockopt(6,1,1);s.sendall(b'split-can');time.sleep(.05);s.sendall(b'ary');s.recv(1)";
  assert.equal((await web.run(["python3", "-c", split])).code, 0);

  const link = await onLink.stop();
  assert.equal(link.contains(CANARY), 4, "there and back, in two families");
  assert.ok(link.contains("split-canary") >= 1);
  assert.equal(link.contains("never sent"), 0);
  assert.deepEqual([...link.openedPorts], [8080]);
  assert.ok(link.tcpDestinationPorts.has(8080));
  assert.ok(link.packets.some(({ sourceAddress }) => sourceAddress === web.ipv6));
  assert.equal(link.dropped, 0);

  const veth = await onVeth.stop();
  assert.deepEqual([...veth.tcpDestinationPorts], [8080]);
  assert.equal(veth.contains(CANARY), 2);

  await delay(100);
  const seen = live.filter(({ payload }) => new TextDecoder().decode(payload).includes(CANARY));
  assert.deepEqual(new Set(seen.map(({ destinationAddress }) => destinationAddress)).size, 4);
});

Deno.test("the applications move streams both ways and one after the other", async () => {
  const { lab, web, api } = await openWithPods();
  await using _ = lab;
  const size = ["--bytes", "10000000"];
  const duplex = await api.serve("duplex", 8081, ...size, "--seed", "1");
  const { result: client } = await web.connect("duplex", api.ipv6!, 8081, ...size, "--seed", "2");
  const server = await duplex.waitForEvent(({ event }) => event === "duplex");
  assert.equal(client.received, 10_000_000);
  assert.equal(client.receivedSha256, server.sentSha256);
  assert.equal(client.sentSha256, server.receivedSha256);
  assert.notEqual(client.sentSha256, client.receivedSha256);

  const halfclose = await api.serve("halfclose", 8082, ...size);
  const { result: asked } = await web.connect("halfclose", api.ipv4!, 8082, "--bytes", "100");
  const answered = await halfclose.waitForEvent(({ event }) => event === "halfclose");
  assert.equal(asked.receivedSha256, answered.sentSha256);
  assert.equal(asked.sentSha256, answered.receivedSha256);

  await api.serve("sink", 8083);
  const { result: sunk } = await web.connect("halfclose", api.ipv4!, 8083, ...size);
  assert.deepEqual(JSON.parse(String(sunk.head)), { sha256: sunk.sentSha256, count: 10_000_000 });
});

Deno.test("the applications tell apart how a connection ends", async () => {
  const { lab, web, api } = await openWithPods();
  await using _ = lab;
  await api.serve("reset", 8081);
  await api.serve("reset", 8082, "--at", "accept");
  await api.serve("close", 8083);
  await api.serve("hold", 8084);
  const end = async (port: number, ...more: string[]) =>
    (await web.connect("expect-reset", api.ipv4!, port, ...more)).result.end;
  assert.equal(await end(8081, "--text", "x"), "reset");
  assert.equal(await end(8082), "reset");
  assert.equal(await end(8083), "eof");
  assert.equal(await end(8084, "--timeout", "0.2"), "timeout");
  assert.equal(await end(9999), "refused");

  const sink = await api.serve("sink", 8085);
  assert.equal((await web.connect("reset", api.ipv4!, 8085, "--bytes", "5")).code, 0);
  await sink.waitForEvent(({ errno }) => errno === "ECONNRESET");
  assert.equal((await web.connect("empty", api.ipv4!, 8085)).code, 0);
  await sink.waitForEvent(({ event, count }) => event === "sink" && count === 0);
});

Deno.test("the applications keep many connections apart, and lines in order", async () => {
  const { lab, web, api } = await openWithPods();
  await using _ = lab;
  await api.serve("echo", 8080);
  for (const mode of ["many", "burst"] as const) {
    const { result } = await web.connect(mode, api.ipv4!, 8080, "--connections", "1000");
    assert.deepEqual([result.ok, result.failed, result.errors], [1000, 0, {}]);
  }

  await api.serve("banner", 8081, "--text", "220 ready");
  const { result: greeted } = await web.connect("echo", api.ipv4!, 8081, "--banner");
  assert.deepEqual([greeted.banner, greeted.reply], ["220 ready", "hello"]);

  const hello = await api.serve("hello", 8082);
  const lines = ["--count", "3", "--every", "10", "--text", "line"];
  const { result } = await web.connect("send", api.ipv4!, 8082, ...lines);
  assert.deepEqual([result.sent, result.answered, result.connections], [3, 3, 1]);
  await web.connect("send", api.ipv4!, 8082, ...lines, "--new-connection");
  await hello.waitForEvent(({ event, connection }) => event === "end" && connection === 4);
  const messages = hello.events.filter(({ event }) => event === "message");
  assert.equal(messages.length, 6);
  assert.equal(messages[0]!.text, "line 1");
});

Deno.test("a pod's object is an ordinary Pod and follows its annotation", async () => {
  const { lab, web } = await openWithPods();
  await using _ = lab;
  const read = () => Deno.readTextFile(`${lab.directory}/${web.fileName}`);
  assert.ok(!(await read()).includes("annotations"));
  await web.annotate("true");
  assert.match(await read(), /annotations:\n {4}kube-gateway\.io: "true"\n/);
  await web.annotate(undefined);
  assert.ok(!(await read()).includes("annotations"));

  const early = await lab.addPod({ name: "early", node: "node-a", object: "before" });
  const pending = await Deno.readTextFile(`${lab.directory}/${early.fileName}`);
  assert.ok(pending.includes("phase: Pending") && !pending.includes("podIP"));
  await early.remove();
  assert.deepEqual(lab.pods.map(({ name }) => name), ["web", "api"]);
  await assert.rejects(Deno.stat(early.cgroup), Deno.errors.NotFound);
  await assert.rejects(Deno.stat(early.netnsPath), Deno.errors.NotFound);
  await assert.rejects(Deno.stat(`${lab.directory}/${early.fileName}`), Deno.errors.NotFound);
});

Deno.test("a pod may have one family, the node's network, or an address used before", async () => {
  await using lab = await Lab.open({ nodes: ["node-a"] });
  const v4 = await lab.addPod({ name: "v4", node: "node-a", families: ["ipv4"] });
  const v6 = await lab.addPod({ name: "v6", node: "node-a", families: ["ipv6"] });
  const host = await lab.addPod({ name: "host", node: "node-a", hostNetwork: true });
  assert.deepEqual(v4.addresses, ["10.77.1.2"]);
  assert.deepEqual(v6.addresses, ["fd77:1::3"]);
  assert.deepEqual(host.addresses, ["10.76.0.1", "fd76::1"]);
  await host.serve("echo", 8080);
  assert.equal((await v4.connect("echo", host.ipv4!, 8080)).code, 0);
  assert.equal((await v6.connect("echo", host.ipv6!, 8080)).code, 0);
  await host.remove();
  assert.equal((await lab.node("node-a").run(["true"])).code, 0);
  await v4.remove();
  const heir = await lab.addPod({ name: "heir", node: "node-a", host: 2 });
  assert.equal(heir.ipv4, v4.ipv4);
});

Deno.test("two labs at once do not meet, and closing leaves nothing of either", async () => {
  const [one, two] = await Promise.all([openWithPods(), openWithPods()]);
  const names = [one.lab.name, two.lab.name];
  assert.notEqual(names[0], names[1]);
  await one.api.serve("echo", 8080);
  assert.equal(
    (await two.web.connect("expect-reset", two.api.ipv4!, 8080)).result.end,
    "refused",
    "the same address in the other lab is another pod",
  );
  const pids = [one, two].flatMap(({ web, api }) => [web.sandboxPid, api.sandboxPid]);
  await Promise.all([one.lab.close(), two.lab.close()]);
  await two.lab.close(); // A second time does no harm.
  for (const name of names) assert.deepEqual(await traces(name), []);
  for (const pid of pids) await assert.rejects(Deno.stat(`/proc/${pid}`), Deno.errors.NotFound);
});

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  Deno.test(`${signal} closes the lab`, async () => {
    const { name, child } = await startOwner();
    child.kill(signal);
    const { code } = await child.status;
    await child.stdout.cancel();
    assert.equal(code, signal === "SIGINT" ? 130 : 143);
    assert.deepEqual(await traces(name), []);
  });
}

Deno.test("the next lab sweeps what a killed one left", async () => {
  const { name, child } = await startOwner();
  child.kill("SIGKILL");
  await child.status;
  await child.stdout.cancel();
  assert.notDeepEqual(await traces(name), []);
  try {
    await using _ = await Lab.open({ nodes: ["node-a"] });
    assert.deepEqual(await traces(name), []);
  } finally {
    await removeTraces(name);
  }
});

/** A process of its own that opens a lab with a pod and leaves it open. */
async function startOwner(): Promise<{ name: string; child: Deno.ChildProcess }> {
  const module = new URL("lab.ts", import.meta.url).href;
  const program = `import { Lab } from ${JSON.stringify(module)};
    const lab = await Lab.open({ nodes: ["node-a"] });
    await lab.addPod({ name: "web", node: "node-a" });
    console.log(lab.name);
    setInterval(() => {}, 1000);`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["eval", program],
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  let name = "";
  while (!name.endsWith("\n")) {
    const { value, done } = await reader.read();
    assert.ok(!done, "the owner ended early");
    name += new TextDecoder().decode(value);
  }
  reader.releaseLock();
  return { name: name.trim(), child };
}

/** Whatever on this machine still carries a lab's name. */
async function traces(lab: string): Promise<string[]> {
  const script = `ip netns list; find /sys/fs/cgroup /tmp -maxdepth 2 -name '${lab}*';
    cat /proc/self/mountinfo; ps -eo args`;
  const { stdout } = await new Deno.Command("sh", { args: ["-c", script] }).output();
  return new TextDecoder().decode(stdout).split("\n")
    .filter((line) => line.includes(lab) && !line.includes("find /sys"));
}
