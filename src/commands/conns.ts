import { askConnections } from "../operate/admin.ts";
import type { AgentConnections, Connection } from "../operate/connections.ts";
import { answersJson, askAgents } from "./ask_agents.ts";
import type { Options } from "./command_line.ts";
import { table } from "./table.ts";

/** `kube-gateway conns`: a table of the connections that are open, or the agents' own JSON. */
export async function connsCommand(options: Options): Promise<void> {
  await askAgents(options, askConnections, (agents) => {
    console.log(options.json === true ? answersJson(options, agents) : connectionsText(agents));
  });
}

export function connectionsText(agents: readonly AgentConnections[]): string {
  const rows = agents.flatMap(({ connections }) => connections.map(row));
  const shown = rows.length;
  const count = agents.reduce((sum, agent) => sum + agent.count, 0);
  const more = count > shown ? [`${count - shown} more are not shown.`] : [];
  if (shown === 0) return ["No connection of an enrolled pod is open.", ...more].join("\n");
  return [...table([HEADINGS, ...rows]), ...more].join("\n");
}

const HEADINGS = [
  "POD",
  "DIRECTION",
  "PEER",
  "CLIENT",
  "DESTINATION",
  "DIALLED",
  "STATE",
  "AGE",
  "SENT",
  "RECEIVED",
  "ENCRYPTION",
];

function row(connection: Connection): string[] {
  const { tls, peerPod, peer, destination, dialled } = connection;
  return [
    connection.pod,
    connection.direction,
    peerPod ?? peer ?? "-",
    connection.client,
    destination,
    dialled === destination ? "-" : dialled,
    connection.state,
    `${(connection.milliseconds / 1000).toFixed(1)}s`,
    String(connection.bytesSent),
    String(connection.bytesReceived),
    tls === undefined ? "none" : `${tls.version} ${tls.cipher} ${tls.group}`,
  ];
}
