import { askStatus } from "../operate/admin.ts";
import { answersJson, askAgents } from "./ask_agents.ts";
import type { Options } from "./command_line.ts";
import { table } from "./table.ts";
import type { AgentStatus, EnrolmentStatus } from "../operate/status.ts";

/** `kube-gateway status`: a table of the enrolments, or the agents' own JSON. */
export async function statusCommand(options: Options): Promise<void> {
  await askAgents(options, askStatus, (agents) => {
    console.log(options.json === true ? answersJson(options, agents) : statusText(agents));
  });
}

/** The table, and below it what needs a person. */
export function statusText(agents: readonly AgentStatus[]): string {
  const rows = agents.flatMap(({ node, enrolments }) => enrolments.map((pod) => row(node, pod)));
  const problems = agents.flatMap(({ node, problems }) =>
    problems.map(({ where, message }) => `! ${node}: ${where}: ${message}`)
  );
  if (rows.length === 0) {
    return ["No pod of this node is annotated kube-gateway.io=true.", ...problems].join("\n");
  }
  return [...table([HEADINGS, ...rows]), ...clearText(agents), ...problems].join("\n");
}

/** What went in clear between peers, and what is known of it; nothing where nothing did. */
function clearText(agents: readonly AgentStatus[]): string[] {
  return agents.flatMap(({ node, enrolments }) =>
    enrolments.flatMap(({ pod, plaintext, olderConnections }) => [
      ...(plaintext === undefined || plaintext.payloadBytes === 0 ? [] : [
        `! ${node}: ${pod}: ${plaintext.payloadBytes} bytes went in clear to peers since ` +
        `${plaintext.peers[0]?.since}, first ${plaintext.peers[0]?.first}`,
      ]),
      ...(olderConnections === undefined || olderConnections.count === 0 ? [] : [
        `! ${node}: ${pod}: ${olderConnections.count} connections with peers are older than the ` +
        "enrolment, and in clear (kube-gateway.io/grace ends them)",
      ]),
    ])
  );
}

const HEADINGS = [
  "POD",
  "NODE",
  "STATE",
  "ADDRESS",
  "IDENTITY",
  "CERTIFICATE",
  "STREAMS",
  "REFUSED",
  "RULES",
];

function row(node: string, pod: EnrolmentStatus): string[] {
  const { traffic, certificate } = pod;
  const refused = [traffic?.refused, pod.refusedInKernel].flatMap((each) =>
    Object.values(each ?? {})
  )
    .reduce((sum, count) => sum + count, 0);
  return [
    pod.pod,
    node,
    pod.reason === undefined ? pod.state : `${pod.state}: ${pod.reason}`,
    pod.addresses.join(",") || "-",
    pod.identity ?? "-",
    certificate === undefined ? "-" : `until ${certificate.notAfter.slice(0, 16)}Z`,
    traffic === undefined ? "-" : `${traffic.streamsOpen} open, ${traffic.streams} in all`,
    traffic === undefined ? "-" : String(refused),
    rules(pod),
  ];
}

/** What is not as it is for most pods. */
function rules({ inbound, egress, allow }: EnrolmentStatus): string {
  const strict = [
    ...(inbound === undefined || inbound === "permissive" ? [] : [`inbound ${inbound}`]),
    ...(egress === undefined || egress === "permissive" ? [] : [`egress ${egress}`]),
    ...(allow === undefined ? [] : [`allow ${allow}`]),
  ];
  return strict.join(", ") || "-";
}
