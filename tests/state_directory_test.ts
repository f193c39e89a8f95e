import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { Lab } from "./lab/lab.ts";
import { openScene } from "./lab/scene.ts";

const PORT = 9000;

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

Deno.test("an agent takes over from a version that had other maps, and nothing is sent in clear", async () => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  await api.serve("echo", PORT);
  await lab.agent("node-a").process.stop("SIGKILL");
  const stateDirectory = `${lab.bpffs}/node-a`;
  // What the other version's maps would be to this one: of another size, and of another type.
  await remake(`${stateDirectory}/maps/peers`, "hash", "key", "16", "value", "64");
  await remake(`${stateDirectory}/maps/pods`, "array", "key", "4", "value", "8");
  const held = await web.connect("echo", api.ipv4!, PORT);
  assert.match(held.stdout, /ECONNREFUSED/);

  await using capture = await lab.captureVeth(web);
  const agent = await lab.startAgent("node-a");
  await lab.waitEnrolled(web);
  assert.equal((await web.connect("echo", api.ipv4!, PORT)).code, 0);
  const { isOnlyPort } = await capture.stop();
  assert.equal(isOnlyPort(TUNNEL_PORT), true);
  const said = agent.log.find(({ message }) => /^another version's maps/.test(`${message}`));
  assert.match(`${said?.message}`, /do not fit: "peers, pods"$/);
});

/** Puts an empty map in a pinned one's place; the programs keep the one that they have. */
async function remake(path: string, type: string, ...sizes: string[]): Promise<void> {
  await Deno.remove(path);
  const { code, stderr } = await new Deno.Command("bpftool", {
    args: ["map", "create", path, "type", type, ...sizes, "entries", "8", "name", "other"],
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
}
