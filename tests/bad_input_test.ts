/**
 * The promise: what is wrong is refused with a reason that a person can act on, and harms nothing
 * else.
 */
import assert from "node:assert/strict";
import { ANNOTATION } from "../src/constants.ts";
import { runCommand } from "./lab/agent.ts";
import { until } from "./lab/delay.ts";
import { attachedPrograms } from "./lab/kernel.ts";
import { Lab } from "./lab/lab.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";

Deno.test("bad objects are refused with a reason, and what was good stays", async (t) => {
  await using lab = await openScene(WEB_AND_API);
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  const agent = lab.agent("node-a");
  await api.serve("echo", 9000);
  /** Enrolled before, enrolled after: the same certificate, and bytes still pass. */
  const isUntouched = async (serial: unknown) => {
    const { state, certificate } = await agent.enrolment(web);
    assert.deepEqual([state, certificate?.serial], ["active", serial]);
    assert.equal((await web.connect("echo", api.ipv4!, 9000)).code, 0);
  };
  const { serial } = (await agent.enrolment(web)).certificate!;

  await t.step(
    "a pod in the node's network is refused: it would enrol the whole node",
    async () => {
      const host = await lab.addPod({
        name: "host",
        node: "node-a",
        hostNetwork: true,
        annotation: "true",
      });
      const { state, reason } = await refusal(lab, host.uid);
      assert.equal(state, "refused");
      assert.match(String(reason), /hostNetwork/);
      assert.deepEqual(await attachedPrograms(host.cgroup), []);
      assert.equal((await host.connect("echo", api.ipv4!, 9000)).code, 0, "it talks as before");
      const table = (await agent.command("status")).stdout;
      assert.match(table, /default\/host .*refused: hostNetwork/);
      await host.remove();
    },
  );

  for (const value of ["True", "yes", "", " true", "1"]) {
    await t.step(`the annotation's value ${JSON.stringify(value)} is refused`, async () => {
      const pod = await lab.addPod({ name: "odd", node: "node-a", annotation: value });
      const { state, reason } = await refusal(lab, pod.uid);
      assert.equal(state, "refused");
      assert.ok(String(reason).includes(`${ANNOTATION} must be "true" or "false"`), String(reason));
      assert.ok(String(reason).includes(JSON.stringify(value)), String(reason));
      await pod.remove();
    });
  }

  const malformed: Record<string, { text: string; line: number }> = {
    "no YAML": { text: "apiVersion: v1\nkind: Pod\nmetadata: {name: [\n", line: 4 },
    "an annotation that is no text": {
      text:
        `apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n  uid: u\n  annotations:\n    ${ANNOTATION}: true\n`,
      line: 7,
    },
    "an address that is none": {
      text:
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x, uid: u}\nstatus:\n  podIP: 10.0.0.300\n",
      line: 5,
    },
  };
  for (const [name, { text, line }] of Object.entries(malformed)) {
    await t.step(
      `a file with ${name} keeps the last good state and names file and line`,
      async () => {
        const from = agent.log.length;
        await lab.write(web.fileName, text); // the file that has enrolled the pod
        const where = `${web.fileName}:${line}`;
        await until(
          async () => (await agent.status()).problems.some((problem) => problem.where === where),
          10_000,
          () => `no problem at ${where}: ${agent.logTail(5)}`,
        );
        const logged = await agent.waitForLog((entry) => entry.file === web.fileName, 10_000, from);
        assert.ok(String(logged.message).startsWith(where), String(logged.message));
        await isUntouched(serial);
        await web.apply();
        await until(
          async () => (await agent.status()).problems.length === 0,
          10_000,
          () => "the problem stays",
        );
        await isUntouched(serial);
      },
    );
  }
});

Deno.test("the command line says what is wrong in one line, and what it can do", async (t) => {
  await using lab = await Lab.open({ nodes: ["node-a"] });
  const node = lab.node("node-a");
  const agent = ["agent", "--cluster", lab.directory, "--state-dir", `${lab.bpffs}/node-a`];

  const wrong: Record<string, { args: string[]; says: RegExp }> = {
    "no node name": { args: agent, says: /agent needs --node-name NAME/ },
    "no cluster": {
      args: ["agent", "--node-name", "node-a"],
      says: /agent needs --kubeconfig FILE or --cluster DIR/,
    },
    "two clusters": {
      args: [...agent, "--node-name", "node-a", "--kubeconfig", "x"],
      says: /--kubeconfig makes no sense with --cluster/,
    },
    "a metrics address that is none": {
      args: [...agent, "--node-name", "node-a", "--metrics-address", "80"],
      says: /--metrics-address must be HOST:PORT or :PORT, not '80'/,
    },
    "an unknown option": {
      args: [...agent, "--node-name", "node-a", "--colour"],
      says: /Unknown option '--colour'.*kube-gateway agent --help/,
    },
    "a bad value": {
      args: [...agent, "--node-name", "node-a", "--workers", "none"],
      says: /--workers must be a whole number from 1 to 64, not 'none'/,
    },
    "a negative number": {
      args: [...agent, "--node-name", "node-a", "--access-log", "-1"],
      says: /--access-log must be a whole number from 0 to 1000000, not '-1'/,
    },
    "a node name that is none": {
      args: [...agent, "--node-name", "../etc"],
      says: /--node-name must be the name of a node in Kubernetes/,
    },
    "an unknown command": { args: ["agnet"], says: /unknown command 'agnet'.*--help/ },
  };
  for (const [name, { args, says }] of Object.entries(wrong)) {
    await t.step(`${name}: exit status 2`, async () => {
      const { code, stdout, stderr } = await runCommand(node, ...args);
      assert.deepEqual([code, stdout], [2, ""], stderr);
      assert.match(stderr, /^kube-gateway: [^\n]+$/);
      assert.match(stderr, says);
    });
  }

  await t.step(
    "an agent that cannot start says why and leaves nothing: exit status 1",
    async () => {
      const args = ["--node-name", "node-a", "--admin-socket", `${lab.temporary}/a.sock`];
      const missing = `${lab.temporary}/missing`;
      const { code, stderr } = await runCommand(node, ...agent, ...args, "--cluster", missing);
      assert.equal(code, 1);
      assert.match(stderr.split("\n").at(-1)!, /^kube-gateway: .*missing/);
    },
  );

  await t.step("status without an agent says where it has looked: exit status 1", async () => {
    const socket = `${lab.temporary}/nobody.sock`;
    const { code, stderr } = await runCommand(node, "status", "--admin-socket", socket);
    assert.equal(code, 1);
    assert.ok(stderr.includes(socket) && !stderr.includes("\n"), stderr);
  });

  await t.step("check finds all needs met here, and tells each", async () => {
    const check = ["check", "--state-dir", `${lab.bpffs}/node-a`];
    const { code, stdout } = await runCommand(node, ...check);
    assert.equal(code, 0, stdout);
    for (
      const need of [
        "processor",
        "Linux 5.15",
        "capabilities",
        "cgroup v2",
        "bpffs",
        "libbpf",
        "OpenSSL 3",
      ]
    ) {
      assert.ok(stdout.includes(need), `${need} is not in\n${stdout}`);
    }
    assert.ok(stdout.split("\n").every((line) => line.startsWith("ok")), stdout);
  });

  await t.step("check finds nothing missing where the agent mounts a bpffs itself", async () => {
    const check = ["check", "--state-dir", `${lab.temporary}/nowhere/x`];
    const { code, stdout } = await runCommand(node, ...check);
    assert.equal(code, 0, stdout);
    assert.match(stdout, /^ok .*bpffs.*nowhere\/x is on none yet: the agent mounts one on /m);
  });

  await t.step("check tells what to do about a need that is not met: exit status 1", async () => {
    const check = ["check", "--state-dir", "/proc/nowhere/x"];
    const { code, stdout } = await runCommand(node, ...check);
    assert.equal(code, 1);
    assert.match(stdout, /^MISS .*bpffs.*\n +mount -t bpf bpf /m);
    const { stdout: json } = await runCommand(node, ...check, "--json");
    const needs = JSON.parse(json) as { met: boolean; todo?: string }[];
    assert.equal(needs.filter(({ met, todo }) => !met && todo !== undefined).length, 1);
  });

  await t.step("--help lists the commands, and each command's its options", async () => {
    const { code, stdout } = await runCommand(node, "--help");
    assert.equal(code, 0);
    for (const command of ["agent", "status", "check", "cleanup"]) {
      assert.match(stdout, new RegExp(`^  ${command} `, "m"));
      const help = await runCommand(node, command, "--help");
      assert.equal(help.code, 0);
      assert.match(help.stdout, new RegExp(`^kube-gateway ${command}: `));
      assert.match(help.stdout, /^ {2}--[a-z-]+ /m);
    }
  });
});

/** How node-a's agent shows a pod, once it does. */
async function refusal(lab: Lab, uid: string) {
  const seen = async () =>
    (await lab.agent("node-a").status()).enrolments.find((enrolment) => enrolment.uid === uid);
  await until(
    async () => await seen() !== undefined,
    10_000,
    () => "the agent does not show the pod",
  );
  return (await seen())!;
}
