import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { runCommand } from "./lab/agent.ts";
import { until } from "./lab/delay.ts";
import { attachedPrograms, mapKeys, pathsBelow } from "./lab/kernel.ts";
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

Deno.test("a bpffs that is unmounted under a running agent is mounted again, with all that was pinned", async () => {
  await using lab = await Lab.open({ nodes: ["node-a"] });
  const pod = await lab.addPod({ name: "pod", node: "node-a", annotation: "true" });
  const directory = `${lab.temporary}/state`;
  const args = ["--state-dir", directory];
  const first = await lab.startAgent("node-a", { args });
  await lab.waitEnrolled(pod);
  const pins = await pathsBelow(directory);
  const attached = await attachedPrograms(pod.cgroup);
  await unmount(directory);
  await until(
    async () => JSON.stringify(await pathsBelow(directory)) === JSON.stringify(pins),
    30_000,
    () => `not pinned again: ${first.logTail()}`,
  );
  const what = `${directory} was removed, or its bpffs unmounted`;
  await first.waitForLog((entry) => entry.what === what);
  assert.deepEqual(await attachedPrograms(pod.cgroup), attached);
  const second = await lab.startAgent("node-a", { args, wait: false });
  assert.equal(await second.process.exited, 1);
  assert.match(second.logTail(), new RegExp(`process ${first.pid} has the state directory`));

  // What holds the pod is there for the next agent.
  await first.kill();
  assert.deepEqual(await attachedPrograms(pod.cgroup), attached);
  const next = await lab.startAgent("node-a", { args });
  await lab.waitEnrolled(pod);
  assert.equal(await next.stop(), 0, next.logTail());
  assert.deepEqual(await attachedPrograms(pod.cgroup), []);
  await unmount(directory); // the next agent found it mounted
});

Deno.test("nobody changes a state directory beside its agent, whatever his other paths", async (t) => {
  await using lab = await Lab.open({ nodes: ["node-a"] });
  const pod = await lab.addPod({ name: "pod", node: "node-a", annotation: "true" });
  const node = lab.node("node-a");
  const stateDirectory = `${lab.bpffs}/node-a`;
  const first = await lab.startAgent("node-a");
  await lab.waitEnrolled(pod);
  const attached = await attachedPrograms(pod.cgroup);
  assert.notDeepEqual(attached, []);
  const pins = await pathsBelow(stateDirectory);
  const keys = await mapKeys(stateDirectory, "pods");
  assert.notDeepEqual(keys, []);
  const assertUntouched = async () => {
    assert.deepEqual(await attachedPrograms(pod.cgroup), attached);
    assert.deepEqual(await pathsBelow(stateDirectory), pins);
    assert.deepEqual(await mapKeys(stateDirectory, "pods"), keys);
    assert.equal((await first.enrolment(pod)).state, "active");
  };

  for (
    const [what, args] of Object.entries({
      "with the same paths": [],
      "with another socket": ["--admin-socket", `${lab.temporary}/other.sock`],
      "with another socket and name": [
        ...["--admin-socket", `${lab.temporary}/other.sock`],
        ...["--node-name", "node-b"],
      ],
    })
  ) {
    await t.step(`a second agent ${what} does not start`, async () => {
      const second = await lab.startAgent("node-a", { args, wait: false });
      assert.equal(await second.process.exited, 1);
      const said = new RegExp(`process ${first.pid} has the state directory .* already: stop it`);
      assert.match(second.logTail(), said);
      await assertUntouched();
    });
  }

  await t.step("an agent with another state directory leaves the socket alone", async () => {
    const other = `${lab.bpffs}/other`;
    const second = await lab.startAgent("node-a", { args: ["--state-dir", other], wait: false });
    assert.equal(await second.process.exited, 1);
    const said = new RegExp(`the agent of node-a \\(process ${first.pid}\\) answers on .* already`);
    assert.match(second.logTail(), said);
    assert.deepEqual(await pathsBelow(other), []);
    await assertUntouched();
  });

  await t.step("cleanup is refused, and names the agent", async () => {
    const { code, stderr } = await runCommand(node, "cleanup", "--state-dir", stateDirectory);
    assert.equal(code, 1);
    assert.match(stderr, new RegExp(`^kube-gateway: process ${first.pid} has .*: stop that agent`));
    await assertUntouched();
  });

  await t.step("a killed agent's lock is free at once", async () => {
    await first.kill();
    const next = await lab.startAgent("node-a");
    await lab.waitEnrolled(pod);
    await next.kill();
    const { code, stdout } = await runCommand(node, "cleanup", "--state-dir", stateDirectory);
    assert.deepEqual([code, stdout], [0, `detached 1 pod and removed ${stateDirectory}`]);
    assert.deepEqual(await attachedPrograms(pod.cgroup), []);
  });
});

Deno.test("an agent that cannot start says why, and leaves nothing", async (t) => {
  await using lab = await Lab.open({ nodes: ["node-a"] });
  const file = `${lab.temporary}/file`;
  const open = `${lab.bpffs}/open`;
  await Deno.writeTextFile(file, "");
  await Deno.mkdir(open);
  await Deno.chmod(open, 0o755);
  const own = `${lab.temporary}/own/state`;
  for (
    const [what, args, says] of [
      [
        "no admin socket can be made",
        ["--admin-socket", `${file}/a.sock`],
        /cannot make the admin/,
      ],
      [
        "the path of its socket is too long",
        ["--admin-socket", `/tmp/${"a".repeat(120)}`],
        /cannot make/,
      ],
      [
        "the metrics' address is not the node's",
        ["--metrics-address", "192.0.2.1:80"],
        /cannot listen on 192.0.2.1:80/,
      ],
      [
        "there is no cgroup v2",
        ["--cgroup-root", "/tmp"],
        /^kube-gateway: \/tmp is not on cgroup v2/,
      ],
      [
        "there is nothing",
        ["--cgroup-root", "/tmp/nothing"],
        /statfs failed with ENOENT: \/tmp\/nothing/,
      ],
      [
        "its state directory is not its own",
        ["--state-dir", open],
        /open belongs to user 0, mode 0755: it must/,
      ],
    ] as const
  ) {
    await t.step(what, async () => {
      const agent = await lab.startAgent("node-a", {
        args: ["--state-dir", own, ...args],
        wait: false,
      });
      assert.equal(await agent.process.exited, 1, agent.logTail());
      assert.match(agent.process.stderr.tail(1), says);
      assert.deepEqual(await pathsBelow(`${lab.temporary}/own`), []);
      assert.equal(Deno.readTextFileSync("/proc/mounts").includes(own), false);
      const left = [...Deno.readDirSync(lab.temporary)].map(({ name }) => name);
      assert.deepEqual(left.filter((name) => /own|sock/.test(name)), []);
    });
  }
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

/** Whoever has something open there keeps that. */
async function unmount(directory: string): Promise<void> {
  const { code, stderr } = await new Deno.Command("umount", { args: ["-l", directory] }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
}

/** Puts an empty map in a pinned one's place; the programs keep the one that they have. */
async function remake(path: string, type: string, ...sizes: string[]): Promise<void> {
  await Deno.remove(path);
  const { code, stderr } = await new Deno.Command("bpftool", {
    args: ["map", "create", path, "type", type, ...sizes, "entries", "8", "name", "other"],
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
}
