import { askAudit } from "../operate/admin.ts";
import type { AgentAudit } from "../operate/status.ts";
import { answersJson, askAgents } from "./ask_agents.ts";
import type { Options } from "./command_line.ts";

/**
 * `kube-gateway audit`: has the agents look now whether everything is as they say, and prints what
 * was not; they have put it right if they could. Ends with 1 when something was found.
 */
export async function auditCommand(options: Options): Promise<void> {
  await askAgents(options, askAudit, (audits) => {
    console.log(options.json === true ? answersJson(options, audits) : auditText(audits));
    if (audits.some(({ findings }) => findings.length > 0)) Deno.exitCode = 1;
  });
}

export function auditText(audits: readonly AgentAudit[]): string {
  return audits.flatMap(({ node, parts, findings }) =>
    findings.length === 0
      ? [`${node}: everything is as it should be (${parts} pods and maps)`]
      : findings.map(({ where, kind, what }) => `! ${node}: ${where}: ${what} (${kind})`)
  ).join("\n");
}
