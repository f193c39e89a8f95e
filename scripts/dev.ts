/**
 * deno task dev [CLUSTER]: runs the signer and an agent for every node of a kind cluster, from the
 * sources, on this machine. kind's nodes are containers, so that their pods' processes, namespaces
 * and cgroups are this kernel's, and nothing has to be built or loaded into the cluster. Root.
 * Ctrl-C ends it and leaves pods with plain connections.
 */
import { parse, stringify } from "yaml";
import { kindCgroup } from "./kind_cgroup.ts";

const REPOSITORY = new URL("..", import.meta.url).pathname;
const [cluster = "kind"] = Deno.args;
const RIGHTS = ["00-namespace", "20-signer-rbac", "30-policies", "60-agent-rbac"];

if (Deno.uid() !== 0) fail("needs root (eBPF, network namespaces): try sudo deno task dev");
const directory = await Deno.makeTempDir({ prefix: "kube-gateway-dev-" });
const admin = `${directory}/admin.kubeconfig`;
try {
  const nodes = (await output("kind", "get", "nodes", "--name", cluster)).trim().split(/\s+/);
  if (nodes[0] === "") fail(`there is no kind cluster "${cluster}": kind create cluster`);
  await Deno.writeTextFile(admin, await output("kind", "get", "kubeconfig", "--name", cluster));
  await output("scripts/build-bpf");
  for (const name of RIGHTS) await kubectl("apply", "-f", `daemonset/${name}.yaml`);

  const running = [kubeGateway("signer", "--kubeconfig", admin, "--health-address", "127.0.0.1:0")];
  for (const node of nodes) {
    running.push(kubeGateway(
      "agent",
      ...["--node-name", node],
      ...["--kubeconfig", await agentKubeconfig(node)],
      ...["--cgroup-root", await cgroupRootOf(node)],
      ...["--state-dir", `/sys/fs/bpf/kube-gateway-${node}`],
      ...["--admin-socket", `/run/kube-gateway/${node}.sock`],
    ));
    console.log(`kube-gateway status --admin-socket /run/kube-gateway/${node}.sock`);
  }
  // Ctrl-C goes to the whole group; what remains to be done is to wait.
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => {});
  await Promise.race(running.map(({ status }) => status));
  for (const process of running) stop(process);
  await Promise.all(running.map(({ status }) => status));
} finally {
  await Deno.remove(directory, { recursive: true });
}

/**
 * With a token as a pod of the DaemonSet on that node has it: bound to the Node (Kubernetes 1.31),
 * so with its claim.
 */
async function agentKubeconfig(node: string): Promise<string> {
  const token = `${directory}/${node}.token`;
  const file = `${directory}/${node}.kubeconfig`;
  const bound = ["--bound-object-kind", "Node", "--bound-object-name", node, "--duration", "24h"];
  const create = ["create", "token", "kube-gateway-agent", "--namespace", "kube-gateway", ...bound];
  await Deno.writeTextFile(token, await kubectl(...create));
  const config = parse(await Deno.readTextFile(admin)) as { users: { user: unknown }[] };
  for (const entry of config.users) entry.user = { tokenFile: token };
  await Deno.writeTextFile(file, stringify(config));
  return file;
}

/** Where the node's kubelet makes its pods' cgroups, as this machine sees it. */
async function cgroupRootOf(node: string): Promise<string> {
  const pid = (await output("docker", "inspect", "--format", "{{.State.Pid}}", node)).trim();
  return kindCgroup(
    await Deno.readTextFile(`/proc/${pid}/cgroup`),
    await Deno.readTextFile("/proc/self/mountinfo"),
  );
}

function kubectl(...args: string[]): Promise<string> {
  return output("kubectl", "--kubeconfig", admin, ...args);
}

async function output(program: string, ...args: string[]): Promise<string> {
  let result: Deno.CommandOutput;
  try {
    result = await new Deno.Command(program, { args, cwd: REPOSITORY }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    fail(`${program} is not installed; docker, kind and kubectl are needed`);
  }
  const { success, stdout, stderr } = result;
  if (!success) fail(`${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr).trim()}`);
  return new TextDecoder().decode(stdout);
}

function kubeGateway(...args: string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--v8-flags=--max-semi-space-size=2", "-A", "src/main.ts", ...args],
    cwd: REPOSITORY,
  }).spawn();
}

function stop(process: Deno.ChildProcess): void {
  try {
    process.kill("SIGTERM");
  } catch {
    // It has ended already.
  }
}

function fail(why: string): never {
  console.error(`dev: ${why}`);
  Deno.exit(1);
}
