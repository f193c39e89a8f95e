import assert from "node:assert/strict";
import { Lab } from "./lab/lab.ts";

Deno.test("an agent whose state directory is on no bpffs mounts one, and takes it away again", async () => {
  await using lab = await Lab.open({ nodes: ["node-a"] });
  const pod = await lab.addPod({ name: "pod", node: "node-a", annotation: "true" });
  const directory = `${lab.temporary}/state`;
  const mounts = () =>
    Deno.readTextFileSync("/proc/mounts").split("\n").filter((line) => line.includes(directory));
  const agent = await lab.startAgent("node-a", { args: ["--state-dir", directory] });
  await lab.waitEnrolled(pod);
  assert.match(mounts().join("\n"), /^bpf /);
  assert.deepEqual([...Deno.readDirSync(`${directory}/pods`)].map(({ name }) => name), [pod.uid]);
  assert.equal(await agent.stop(), 0, agent.logTail());
  assert.deepEqual(mounts(), []);
});

Deno.test("a second agent with the same paths is refused, and the first goes on", async () => {
  await using lab = await Lab.open({ nodes: ["node-a"] });
  const pod = await lab.addPod({ name: "pod", node: "node-a", annotation: "true" });
  const first = await lab.startAgent("node-a");
  await lab.waitEnrolled(pod);
  const second = await lab.startAgent("node-a", { wait: false });
  assert.equal(await second.process.exited, 1);
  assert.match(second.logTail(), /the agent of node-a \(process \d+\) answers on .* already/);
  const { enrolments: [enrolment] } = await first.status();
  assert.equal(enrolment?.state, "active");
});
