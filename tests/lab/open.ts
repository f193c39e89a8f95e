/** The demo's two pods and their agents, left running to play with: deno task lab. */
import { delay } from "./delay.ts";
import { Lab } from "./lab.ts";
import { bold, dim } from "./story.ts";

if (Deno.uid() !== 0) {
  console.error("lab: needs root (network namespaces, eBPF): try sudo deno task lab");
  Deno.exit(1);
}
await using lab = await Lab.open();
const [client, server] = await lab.addPods([
  { name: "pod-01", node: "node-a" },
  { name: "pod-02", node: "node-b" },
]);
if (client === undefined || server?.ipv4 === undefined) throw new Error("a pod has no address");
const agents = await Promise.all(lab.nodes.map(({ name }) => lab.startAgent(name)));
await server.serve("hello", 9000);
client.startClient(
  ...["send", server.ipv4, 9000] as const,
  ...["--text", "Hello from pod-01", "--every", "500", "--count", "1000000", "--new-connection"],
);

const sockets = agents.map(({ paths }) => `--admin-socket ${paths.adminSocket}`).join(" ");
console.log(
  `${bold("pod-01 says hello to pod-02:9000 every half second. To try, from another terminal:")}

  enrol both pods       sed -i 's/^metadata:/&\\n  annotations: { kube-gateway.io: "true" }/' ${lab.directory}/pod-*.yaml
  un-enrol them         sed -i '/kube-gateway.io:/d' ${lab.directory}/pod-*.yaml
  ask the agents        deno task kube-gateway status ${sockets}
  read along            ip netns exec ${
    lab.node("node-a").netns
  } tcpdump -lnA -i eth0 'tcp port 9000 or 18443'
  a shell in pod-01     ip netns exec ${client.netns} bash

${dim("The agents' logs follow. Ctrl-C ends it and removes everything.")}
`,
);
const shown = new Map(agents.map((agent) => [agent, 0]));
for (;;) {
  for (const agent of agents) {
    for (const line of agent.log.slice(shown.get(agent))) {
      console.log(`${agent.node.name}  ${line.level ?? ""}  ${line.message}`);
    }
    shown.set(agent, agent.log.length);
  }
  await delay(200);
}
