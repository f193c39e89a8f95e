/** The promise: a pod that is annotated from the start never sends a byte to a peer in clear. */
import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { KUBELET_DIRECTORIES } from "./lab/cgroup.ts";
import { delay, until } from "./lab/delay.ts";
import { attachedPrograms } from "./lab/kernel.ts";
import { Lab } from "./lab/lab.ts";
import { OUTSIDE } from "./lab/network.ts";
import type { Pod } from "./lab/pod.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";

const PORT = 9000;
const CANARY = "canary that must not be read on the wire";
const PLAIN_CANARY = "another one that may be";
const BATCH = 10;

/**
 * A container whose first instruction connects, and which tries again until it has an answer: on a
 * starved machine a certificate may take longer than the 5 s for which a connection waits, which is
 * reset then. It pauses in `read`, a builtin: a hundred shells that fork `sleep` fifty times a
 * second would starve what they wait for.
 */
function container(host: string, text: string): string[] {
  const script = `while [ $SECONDS -lt 100 ]; do
       if exec 3<>/dev/tcp/${host}/${PORT}; then
         echo "${text}" >&3; read -r answer <&3; [ -n "$answer" ] && echo "$answer" && exit 0
       fi
       [ -e /dev/fd/4 ] || exec 4<> <(:); read -t 0.02 -u 4
     done 2>/dev/null; exit 1`;
  return ["bash", "-c", script];
}

/** Where the pods' objects are, when they are seen, and how many pods are born. */
const CASES = [
  { cluster: "directory", object: "before", count: 100 },
  { cluster: "directory", object: "after", count: 100 },
  { cluster: "api", object: "before", count: 200 }, // kubelet makes nothing for a pod that it has not seen
] as const;

for (const { cluster, object, count } of CASES) {
  Deno.test(`pods that are born while their agent works: ${cluster}, the objects seen ${object} the cgroups`, async () => {
    await using lab = await Lab.open({ cluster });
    if (cluster === "api") await lab.startSigner();
    const server = await lab.addPod({ name: "server", node: "node-b", annotation: "true" });
    assert(server.ipv4);
    await Promise.all(["node-a", "node-b"].map((node) => lab.startAgent(node)));
    await lab.waitEnrolled(server);
    await server.serve("hello", PORT);
    const filter = "tcp and not port 6443"; // the agent's own conversation with the API server
    const capture = await lab.captureNodeLink("node-a", { filter });

    const born: Promise<{ code: number; stdout: string }>[] = [];
    for (let round = 0; round < count; round += BATCH) {
      const names = Array.from({ length: BATCH }, (_, index) => `born-${round + index}`);
      const options = names.map((name) => ({ name, node: "node-a", annotation: "true", object }));
      const pods = await lab.addPods(options, (pod: Pod) => {
        born.push(pod.run(container(server.ipv4 ?? "", CANARY)));
      });
      for (const pod of pods) await pod.apply(); // kubelet's status, last
    }
    for (const { code, stdout } of await Promise.all(born)) {
      assert.equal(code, 0, "a pod never reached the server");
      assert.match(stdout, /^got /);
    }
    const { openedPorts, contains, dropped } = await capture.stop();
    assert.equal(dropped, 0);
    assert.equal(contains(CANARY), 0);
    assert.deepEqual([...openedPorts], [TUNNEL_PORT]);
  });
}

Deno.test("pods that are born while their agent cannot act", async (t) => {
  await using lab = await openScene([...WEB_AND_API, { name: "plain", node: "node-a" }]);
  const api = lab.pod("api");
  await api.serve("hello", PORT);
  await lab.outside.serve("echo", PORT);
  const addBorn = (round: string) => {
    const common = { node: "node-a", object: "before" } as const;
    return lab.addPods([
      { ...common, name: `annotated-${round}`, annotation: "true" },
      { ...common, name: `systemd-${round}`, annotation: "true", layout: "systemd" },
      { ...common, name: `free-${round}` },
    ]);
  };
  const away = {
    "it is stopped": {
      leave: () => Promise.resolve(lab.agent("node-a").process.kill("SIGSTOP")),
      return: () => Promise.resolve(lab.agent("node-a").process.kill("SIGCONT")),
    },
    "it has crashed": {
      leave: () => lab.agent("node-a").kill(),
      return: () => lab.startAgent("node-a"),
    },
  };
  for (const [name, agent] of Object.entries(away)) {
    await t.step(name, async () => {
      const capture = await lab.captureNodeLink("node-a", { filter: "tcp" });
      await agent.leave();
      const [annotated, systemd, free] = await addBorn(name.split(" ").at(-1) ?? "");
      assert(annotated && systemd && free);
      const answers = [
        ...[annotated, systemd].flatMap((pod) =>
          api.addresses.map((host) => pod.run(container(host, CANARY)))
        ),
        free.run(container(api.ipv4 ?? "", PLAIN_CANARY)),
      ];
      for (const host of api.addresses) {
        const { stdout } = await annotated.connect("echo", host, PORT);
        assert.match(stdout, /ECONNREFUSED/);
      }
      // What the agent has decided before it left stays decided, and what is no peer is nobody's
      // business.
      const { code } = await lab.pod("plain").run(container(api.ipv4 ?? "", PLAIN_CANARY));
      assert.equal(code, 0);
      for (const pod of [annotated, free]) {
        assert.equal((await pod.connect("echo", OUTSIDE.ipv4, PORT)).code, 0);
      }
      await delay(500);
      await agent.return();
      for (const pod of [annotated, systemd, free]) await pod.apply();
      for (const { code } of await Promise.all(answers)) assert.equal(code, 0);
      const { contains, packets, dropped } = await capture.stop();
      assert.equal(dropped, 0);
      assert.equal(contains(CANARY), 0);
      assert.equal(contains(PLAIN_CANARY), 4, "two pods that are not annotated, and the answers");
      const own = new Set([annotated, systemd].flatMap(({ addresses }) => addresses));
      const inClear = packets.filter(({ sourceAddress, destinationAddress, destinationPort }) =>
        own.has(sourceAddress) && api.addresses.includes(destinationAddress) &&
        destinationPort !== TUNNEL_PORT
      );
      assert.deepEqual(inClear, []);
      assert.deepEqual(await attachedPrograms(free.cgroup), []);
    });
  }

  await t.step("nobody is held once the gateway has gone", async () => {
    assert.equal(await lab.agent("node-a").stop(), 0);
    const [, , free] = await addBorn("after");
    assert.equal((await free?.run(container(api.ipv4 ?? "", PLAIN_CANARY)))?.code, 0);
  });
});

Deno.test("a node on which kubelet begins after the agent", async () => {
  await using lab = await Lab.open();
  const node = lab.node("node-a");
  for (const directory of [...KUBELET_DIRECTORIES, "kubepods", "kubepods.slice"]) {
    await Deno.remove(`${node.cgroup}/${directory}`);
  }
  const server = await lab.addPod({ name: "server", node: "node-b", annotation: "true" });
  const [agent] = await Promise.all(["node-a", "node-b"].map((name) => lab.startAgent(name)));
  await lab.waitEnrolled(server);
  await server.serve("hello", PORT);
  assert.match(JSON.stringify((await agent?.status())?.problems), /new pods are not held/);

  await node.makeCgroups();
  const pods = ["cgroupfs", "systemd"] as const;
  await lab.addPods(pods.map((layout) => ({ name: layout, node: "node-a", layout })));
  await until(
    async () => (await agent?.status())?.problems.length === 0,
    10_000,
    () => `no pod is held: ${agent?.logTail()}`,
  );
  for (const directory of ["kubepods", "kubepods.slice"]) {
    assert.deepEqual(await attachedPrograms(`${node.cgroup}/${directory}`), ["hold4", "hold6"]);
  }
});
