import { askStatus } from "../operate/admin.ts";
import type { EnrolmentStatus } from "../operate/status.ts";
import { askAgents } from "./ask_agents.ts";
import type { Options } from "./command_line.ts";
import { table } from "./table.ts";

/** `kube-gateway certs`: a table of the pods' certificates, or JSON. */
export async function certsCommand(options: Options): Promise<void> {
  await askAgents(options, askStatus, (agents) => {
    const certified = agents.flatMap(({ enrolments }) => enrolments)
      .filter(({ certificate }) => certificate !== undefined);
    console.log(options.json === true ? json(certified) : certificatesText(certified, new Date()));
  });
}

export function certificatesText(pods: readonly EnrolmentStatus[], now: Date): string {
  if (pods.length === 0) return "No pod of this node has a certificate.";
  return table([
    ["POD", "IDENTITY", "ADDRESSES", "SERIAL", "NOT BEFORE", "NOT AFTER", "LEFT"],
    ...pods.map(({ pod, identity, addresses, certificate }) => [
      pod,
      identity ?? "-",
      addresses.join(","),
      certificate?.serial ?? "-",
      certificate?.notBefore ?? "-",
      certificate?.notAfter ?? "-",
      left(certificate?.notAfter, now),
    ]),
  ]).join("\n");
}

function left(notAfter: string | undefined, now: Date): string {
  const minutes = Math.floor((Date.parse(notAfter ?? "") - now.getTime()) / 60_000);
  if (Number.isNaN(minutes)) return "-";
  return minutes < 0 ? "expired" : `${Math.floor(minutes / 60)}h${minutes % 60}m`;
}

function json(pods: readonly EnrolmentStatus[]): string {
  const facts = pods.map(({ pod, uid, identity, addresses, certificate }) => ({
    pod,
    uid,
    identity,
    addresses,
    ...certificate,
  }));
  return JSON.stringify(facts, null, 2);
}
