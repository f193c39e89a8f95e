import { runCommand } from "../../lab/agent.ts";
import type { Lab } from "../../lab/lab.ts";
import { type Contender, type Pods, wayTo } from "./contender.ts";

/** Enrolled pods, with an agent on each node. */
export async function openGateway(
  lab: Lab,
  { own, neighbours }: Pods,
  agentArguments: string[] = [],
): Promise<Contender> {
  const start = async () => {
    const args = ["--log-level", "warning", "--access-log", "0", ...agentArguments];
    const options = { args };
    await Promise.all(lab.nodes.map(({ name }) => lab.startAgent(name, options)));
    await Promise.all([...own, ...neighbours].map((pod) => lab.waitEnrolled(pod, 30_000)));
  };
  await start();
  return {
    ...wayTo(own),
    name: "gateway",
    neighbour: wayTo(neighbours),
    cgroups: lab.nodes.map(({ agentCgroup }) => agentCgroup),
    async restart() {
      await Promise.all(lab.nodes.map(({ name }) => lab.agent(name).stop()));
      await start();
    },
  };
}

/** Whether the agent of these sources has an option. */
export async function agentKnows(lab: Lab, option: string): Promise<boolean> {
  const [node] = lab.nodes;
  if (node === undefined) return false;
  const { stdout, stderr } = await runCommand(node, "agent", "--help");
  return `${stdout}${stderr}`.includes(`--${option} `);
}
