/**
 * The promise: whatever keeps a pod from being enrolled, and whatever becomes of its agent, its
 * signer and the API server meanwhile, the pod is refused, never reached in clear, and never said
 * to be secured.
 */
import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { Canary } from "./lab/canary.ts";
import { removeCgroup } from "./lab/cgroup.ts";
import { until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";
import { LeakDetector } from "./lab/leak_detector.ts";
import type { Pod } from "./lab/pod.ts";
import { ConditionLog, waitRegistered, waitSecured } from "./lab/secured.ts";

const PORT = 9000;
const CANARY = "canary-matrix-canary";
const AGENTS = "system:serviceaccount:kube-gateway:kube-gateway-agent";
const ARGS = ["--access-log", "0", "--daemon-set", "kube-gateway-agent"];

interface Way {
  /** What is said of the pod, by its agent. */
  readonly says: RegExp;
  /**
   * Brings it about. The pod's server goes on: it is in the pod's namespace, but not in its cgroup.
   */
  readonly keep: (lab: Lab, pod: Pod) => Promise<void>;
}

/** What keeps a pod from being enrolled, by the pod's name. */
const WAYS: Readonly<Record<string, Way>> = {
  "port-taken": {
    says: /EADDRINUSE/,
    keep: async (_, pod) => {
      const listener = pod.spawn(["python3", "-u", "-c", LISTEN, pod.ipv4 ?? ""]);
      await listener.stdout.wait((line) => line === "listening", 20_000);
    },
  },
  "no-process": {
    says: /no process runs in the pod's cgroup/,
    keep: (_, pod) => Deno.writeTextFile(`${pod.cgroup}/cgroup.kill`, "1"),
  },
  "no-cgroup": {
    says: /its cgroup has not been found/,
    keep: (_, pod) => removeCgroup(pod.cgroup),
  },
  "in-the-nodes-namespace": {
    says: /all processes of the pod are in the node's network namespace/,
    keep: async (_, pod) => {
      const elsewhere = pod.spawn(["nsenter", `--net=${pod.node.netnsPath}`, ...SLEEP]);
      await alone(pod, elsewhere.pid);
    },
  },
  "in-a-users-namespace": {
    says: /a user namespace that is not the node's/,
    keep: async (_, pod) => {
      const hostile = pod.spawn(["unshare", "--user", "--net", ...SLEEP]);
      await alone(pod, hostile.pid);
    },
  },
  "certificate-denied": {
    says: /PodDeleted/,
    // It is terminating, and takes its time.
    keep: (lab, { namespace, name }) =>
      lab.api.server.delete({ resource: "pods", namespace, name }, { gracePeriodSeconds: 600 }),
  },
};

const SLEEP = ["sleep", "infinity"];

Deno.test("every way not to be enrolled, and everything that happens meanwhile", async (t) => {
  await using lab = await Lab.open({ cluster: "api" });
  const names = Object.keys(WAYS);
  const [web, good, late, ...kept] = await lab.addPods([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "good", node: "node-b", annotation: "true" },
    { name: "late", node: "node-b" },
    ...names.map((name) => ({ name, node: "node-b", annotation: "true" })),
  ]);
  assert(web && good && late);
  for (const pod of [good, late, ...kept]) {
    const server = pod.node.spawn(["nsenter", `--net=${pod.netnsPath}`, ...SERVE]);
    await server.waitForEvent(({ event }) => event === "listening", 20_000);
  }
  for (const pod of kept) await WAYS[pod.name]?.keep(lab, pod);
  const start = (node: string, wait = true) => lab.startAgent(node, { args: ARGS, wait });
  let signer = await lab.startSigner();
  await start("node-a");
  await waitSecured(lab, web, "True");
  await using log = new ConditionLog(lab);

  /** What node-b's agent says of each, and that the others' know them. */
  const settled = async (pods: readonly Pod[] = kept) => {
    const said = new Map<string, string>();
    await until(
      async () => {
        const { enrolments } = await lab.agent("node-b").status();
        for (const { uid, state, reason } of enrolments) said.set(uid, `${state}: ${reason}`);
        return pods.every(({ uid, name }) =>
          (WAYS[name]?.says ?? /./).test(said.get(uid) ?? "") &&
          !said.get(uid)?.startsWith("active")
        );
      },
      60_000,
      () => pods.map(({ uid, name }) => `${name} ${said.get(uid)}`).join("\n"),
    );
  };
  await start("node-b");
  await settled();
  for (const pod of kept) await waitRegistered(lab, pod, false);
  await until(
    async () => {
      const { peers } = await lab.agent("node-a").status();
      return kept.every(({ uid }) => peers.some((peer) => peer.uid === uid));
    },
    30_000,
    () => lab.logTails(),
  );

  await using detector = await LeakDetector.start(lab, [web, good, late]);
  await using ok = new Canary(web, good, PORT, CANARY, 100);
  const canaries = kept.map((pod) => new Canary(web, pod, PORT, CANARY, 100));
  await using _all = new AsyncDisposableStack();
  for (const canary of canaries) _all.use(canary);
  const refused = () => Promise.all(canaries.map((canary) => canary.refused(1)));

  const row = async (name: string, happens: () => Promise<void>) => {
    const isFine = await t.step(name, async () => {
      await happens();
      await settled();
      await refused();
      await waitSecured(lab, good, "True", /./, 60_000);
      await ok.answered(2);
    });
    if (!isFine) throw new Error(`it ends with "${name}": ${lab.logTails()}`);
  };

  await row("the agent's first start", () => Promise.resolve());
  await row("it is killed, and started", async () => {
    await lab.agent("node-b").kill();
    await refused();
    await start("node-b");
  });
  await row("it is upgraded", async () => {
    assert.equal(await lab.agent("node-b").stop(), 0);
    await refused();
    await start("node-b");
  });
  await row("it is started while no signer answers", async () => {
    await signer.stop(); // which leaves its Lease to the next
    await lab.agent("node-b").kill();
    await start("node-b");
    await settled(kept.filter(({ name }) => name !== "certificate-denied"));
    await refused();
    await waitSecured(lab, good, "False");
    signer = await lab.startSigner();
  });
  await row("it is started while no API server answers", async () => {
    await lab.api.server.stallConnections();
    await lab.agent("node-b").kill();
    const agent = await start("node-b", false);
    await refused();
    await lab.api.server.resumeConnections();
    await agent.waitReady(60_000);
  });
  await row("it is started while the registry cannot be written", async () => {
    await using denied = new AsyncDisposableStack();
    for (const verb of ["create", "patch", "update", "delete"]) {
      denied.use(
        await lab.api.server.misbehave({ path: "endpointslices", user: AGENTS, verb, status: 403 }),
      );
    }
    await lab.agent("node-b").kill();
    await start("node-b");
    await refused();
  });
  await row("it has no descriptor left for one more", async () => {
    const { pid } = lab.agent("node-b");
    const open = [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
    await limitDescriptors(pid, open + 4);
    await late.annotate("true");
    await settled([late]);
    await waitRegistered(lab, late, false);
    await using canary = new Canary(web, late, PORT, CANARY, 100);
    await canary.refused(1);
    await limitDescriptors(pid, 20_000);
    await waitSecured(lab, late, "True", /./, 60_000);
    await canary.answered(2);
  });

  for (const pod of kept) assert(!log.wasEverSecured(pod), `${pod.name} was said to be secured`);
  assert(log.wasEverSecured(good), "who is secured is seen to be");
  const known = new Set(late.addresses);
  const leaks = await detector.stop(CANARY);
  assert.deepEqual(leaks.filter(({ to }) => !known.has(to)), []);
});

/** Leaves the pod this process only, once that has left the namespace that it was started in. */
async function alone(pod: Pod, pid: number): Promise<void> {
  const namespaceOf = (process: number | "self") => Deno.readLinkSync(`/proc/${process}/ns/net`);
  const own = namespaceOf(pod.sandboxPid);
  await until(
    () => Deno.readTextFileSync(`/proc/${pid}/comm`).trim() === "sleep" && namespaceOf(pid) !== own,
    20_000,
    () => `process ${pid} stays in the namespace of ${pod.key}`,
  );
  Deno.kill(pod.sandboxPid, "SIGKILL");
}

async function limitDescriptors(pid: number, count: number): Promise<void> {
  const { success } = await new Deno.Command("prlimit", {
    args: ["--pid", `${pid}`, `--nofile=${count}:`],
  }).output();
  assert(success);
}

const SERVE = [
  ...["python3", "-B", "-S", `${import.meta.dirname}/lab/apps`],
  ...["serve", "--mode", "hello", "--port", `${PORT}`],
];

/** Listens at the tunnel's port, and says nothing. */
const LISTEN = `
import socket, sys, time
sock = socket.socket()
sock.bind((sys.argv[1], ${TUNNEL_PORT}))
sock.listen(1)
print("listening")
time.sleep(1000)
`;
