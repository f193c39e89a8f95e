import assert from "node:assert/strict";
import { Lab } from "./lab/lab.ts";
import type { Pod } from "./lab/pod.ts";

const CANARY = "canary that must not be read on the wire";
const BATCH = 10;

/** A container whose first instruction connects, and which tries again while it is refused. */
const CONTAINER = (host: string) => [
  "bash",
  "-c",
  `while [ $SECONDS -lt 50 ]; do
     if exec 3<>/dev/tcp/${host}/9000; then echo "${CANARY}" >&3; read -r answer <&3; echo "$answer"; exit 0; fi
     sleep 0.02
   done 2>/dev/null; exit 1`,
];

/** Where the pods' objects are, when they are seen, and how many pods are born. */
const CASES = [
  { cluster: "directory", object: "before", count: 100 },
  { cluster: "directory", object: "after", count: 100 },
  { cluster: "api", object: "before", count: 200 }, // kubelet makes nothing for a pod that it has not seen
] as const;

for (const { cluster, object, count } of CASES) {
  Deno.test(`a pod that is annotated from the start never sends a byte in clear: ${cluster}, its object seen ${object} its cgroup`, async () => {
    await using lab = await Lab.open({ cluster });
    if (cluster === "api") await lab.startSigner();
    const server = await lab.addPod({ name: "server", node: "node-b", annotation: "true" });
    assert(server.ipv4);
    await Promise.all(["node-a", "node-b"].map((node) => lab.startAgent(node)));
    await lab.waitEnrolled(server);
    await server.serve("hello", 9000);
    const filter = "tcp and not port 6443"; // the agent's own conversation with the API server
    const capture = await lab.captureNodeLink("node-a", { filter });

    const born: Promise<{ code: number; stdout: string }>[] = [];
    for (let round = 0; round < count; round += BATCH) {
      const names = Array.from({ length: BATCH }, (_, index) => `born-${round + index}`);
      const options = names.map((name) => ({ name, node: "node-a", annotation: "true", object }));
      const pods = await lab.addPods(options, (pod: Pod) => {
        born.push(pod.run(CONTAINER(server.ipv4 ?? ""), { timeoutMs: 60_000 }));
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
    assert.deepEqual([...openedPorts], [18443]);
  });
}
