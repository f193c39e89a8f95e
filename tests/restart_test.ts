/**
 * The promise: agents that are killed, frozen and started again and again leave nothing in clear,
 * and every pod is served again soon; what a pod was is nobody else's when it has gone.
 */
import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { Canary } from "./lab/canary.ts";
import { delay, until } from "./lab/delay.ts";
import { tcpSockets } from "./lab/kernel.ts";
import type { Lab } from "./lab/lab.ts";
import { LeakDetector } from "./lab/leak_detector.ts";
import type { Pod } from "./lab/pod.ts";
import type { LabProcess } from "./lab/process.ts";
import { openScene } from "./lab/scene.ts";

const PORT = 9000;
const CANARY = "canary-restart-canary";
const RESTARTS = 20;
const CLIENTS = 10;
/** 200 new connections a second of all clients together. */
const EVERY_MILLISECONDS = CLIENTS * 1000 / 200;
/** The promise is 3 s; a machine that is busy with other things may take longer. */
const RECOVERY_MILLISECONDS = 10_000;

Deno.test("agents come and go", async (t) => {
  await using lab = await openScene([
    { name: "web", node: "node-a", annotation: "true" },
    ...["api", "db", "ipv4", "ipv6", "systemd"].map((name) => ({
      name,
      node: "node-b",
      annotation: "true",
      ...(name === "ipv4" || name === "ipv6" ? { families: [name] as ("ipv4" | "ipv6")[] } : {}),
      ...(name === "systemd" ? { layout: "systemd" as const } : {}),
    })),
  ]);
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  const servers = lab.pods.filter((pod) => pod !== web);
  await Promise.all(lab.pods.map((pod) => pod.serve("hello", PORT)));
  const start = (node: string) => lab.startAgent(node, { args: ["--access-log", "0"] });

  await t.step(
    `an agent is killed and started ${RESTARTS} times, and serves every pod each time`,
    async () => {
      await using detector = await LeakDetector.start(lab, lab.pods);
      // Who speaks while there is no agent is refused, and not served by chance.
      await using canary = new Canary(api, web, PORT, CANARY, 100);
      await canary.answered();
      for (let round = 0; round < RESTARTS; round++) {
        await lab.agent("node-b").kill();
        await start("node-b");
        await Promise.all(
          servers.flatMap((pod) => pod.addresses.map((host) => answers(web, host))),
        );
      }
      assert.deepEqual(await detector.stop(CANARY), []);
    },
  );

  /** What 200 connections a second see while something happens to an agent. */
  const underLoad = (name: string, happens: () => Promise<void>) =>
    t.step(name, async () => {
      await using detector = await LeakDetector.start(lab, [web, api]);
      const clients = Array.from({ length: CLIENTS }, (_, index) =>
        web.startClient(
          ...["send", (index % 2 === 0 ? api.ipv4 : api.ipv6) ?? "", PORT] as const,
          ...["--text", CANARY, "--every", `${EVERY_MILLISECONDS}`, "--new-connection"],
          ...["--timeout", "5"],
        ));
      await goOn(clients);
      await happens();
      const began = performance.now();
      await goOn(clients);
      const took = performance.now() - began;
      console.log(`${name}: all clients are served again after ${took.toFixed(0)} ms`);
      assert(took < RECOVERY_MILLISECONDS);
      for (const client of clients) await client.stop("SIGKILL");
      assert.deepEqual(await detector.stop(CANARY), []);
    });
  for (const node of ["node-a", "node-b"]) {
    await underLoad(`the agent of ${node} is killed under load`, async () => {
      await lab.agent(node).kill();
      await start(node);
    });
  }
  await underLoad("an agent is frozen for 10 s under load", async () => {
    lab.agent("node-b").process.kill("SIGSTOP");
    await delay(10_000);
    lab.agent("node-b").process.kill("SIGCONT");
  });

  await t.step("a pod is deleted during a transfer", async () => {
    const guest = await lab.addPod({ name: "guest", node: "node-b", annotation: "true" });
    await lab.waitEnrolled(guest);
    await guest.serve("sink", PORT);
    await using detector = await LeakDetector.start(lab, [web]);
    const transfers = guest.addresses.map((host) =>
      web.startClient("duplex", host, PORT, "--bytes", `${2 ** 40}`)
    );
    const toGuest = async () =>
      (await tcpSockets(web)).filter(({ peer, state }) =>
        state !== "TIME-WAIT" && guest.addresses.some((address) => peer.includes(address))
      );
    await until(
      async () =>
        (await toGuest()).filter(({ peer }) => peer.endsWith(`:${TUNNEL_PORT}`)).length >= 2,
      20_000,
      () => "nothing is transferred",
    );
    // Kubelet kills the processes first, and takes the network away when they have ended.
    await Deno.writeTextFile(`${guest.cgroup}/cgroup.kill`, "1", { create: false });
    await until(
      async () => (await toGuest()).length === 0,
      20_000,
      () => "web still has sockets to a pod that is gone",
    );
    for (const transfer of transfers) assert.notEqual(await transfer.exited, 0);
    await guest.remove();
    await lab.waitPlain(guest);
    const packets = await detector.packets();
    const clear = packets.filter((packet) =>
      [packet.sourceAddress, packet.destinationAddress].some((each) =>
        guest.addresses.includes(each)
      ) &&
      ![packet.sourcePort, packet.destinationPort].includes(TUNNEL_PORT)
    );
    assert(packets.length > 0);
    assert.deepEqual(clear, [], "not even FIN or RST");
  });

  await t.step("a sandbox's process number is another process's, elsewhere", async () => {
    const stranger = await lab.addPod({ name: "stranger", node: "node-b" });
    let reused = 0;
    for (let round = 0; round < 5; round++) {
      const pid = api.sandboxPid;
      await api.replaceSandbox();
      reused += await takeNumber(lab, stranger, pid) ? 1 : 0;
      await api.serve("hello", PORT);
      await Promise.all(api.addresses.map((host) => answers(web, host)));
      for (const place of [stranger, lab.node("node-b")]) {
        const listening = (await tcpSockets(place)).filter(({ local }) =>
          local.endsWith(`:${TUNNEL_PORT}`)
        );
        assert.deepEqual(listening, [], "listens where it must not");
      }
    }
    console.log(`${reused} of 5 process numbers were used again in another pod`);
  });
});

/** Waits until a connection to it is answered. */
async function answers(client: Pod, host: string): Promise<void> {
  const script = `while [ $SECONDS -lt 60 ]; do
     if exec 3<>/dev/tcp/$1/${PORT}; then
       echo "$2" >&3; read -r answer <&3; [ -n "$answer" ] && exit 0
     fi
     sleep 0.05
   done 2>/dev/null; exit 1`;
  const { code } = await client.run(["bash", "-c", script, "bash", host, CANARY], {
    timeoutMs: 90_000,
  });
  assert.equal(code, 0, `${host} does not answer`);
}

/** Waits until each has had ten answers in a row. */
async function goOn(clients: readonly LabProcess[]): Promise<void> {
  const from = clients.map(({ stdout }) => stdout.all.length);
  await until(
    () =>
      clients.every(({ stdout }, index) =>
        stdout.all.length >= (from[index] ?? 0) + 10 &&
        stdout.all.slice(-10).every((line) => line.includes('"sent"'))
      ),
    60_000,
    () => JSON.stringify(clients.map(({ stdout }) => stdout.all.at(-1))),
  );
}

/** Tries to start a process with this number in the pod; others may take it first. */
async function takeNumber(lab: Lab, pod: Pod, pid: number): Promise<boolean> {
  for (let attempt = 0; attempt < 20; attempt++) {
    const script = `echo ${pid - 1} > /proc/sys/kernel/ns_last_pid; ` +
      `nsenter --net=${pod.netnsPath} sleep 1000 & echo $!`;
    const process = lab.node(pod.node.name).spawn(["bash", "-c", script]);
    const taken = Number(await process.stdout.wait(() => true, 10_000));
    if (taken === pid) return true;
    process.kill();
  }
  return false;
}
