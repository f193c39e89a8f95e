import type { Lab } from "../../lab/lab.ts";
import { startServers } from "../applications.ts";
import { type Certificates, writeCertificates } from "./certificates.ts";
import type { Contender, ContenderName, Pair, Pods } from "./contender.ts";
import { openDirect } from "./direct.ts";
import { openGateway } from "./gateway.ts";
import { openHaproxy } from "./haproxy.ts";
import { openNginx } from "./nginx.ts";
import { openStunnel } from "./stunnel.ts";

/** What could be opened, and why the rest could not. */
export interface Opened {
  readonly contenders: Contender[];
  readonly notes: Map<ContenderName, string>;
}

/** Each contender with two pods of its own, on two nodes, and the same applications in them. */
export async function openContenders(lab: Lab, names: readonly ContenderName[]): Promise<Opened> {
  const certificates = await writeCertificates(lab.temporary);
  const opened: Opened = { contenders: [], notes: new Map() };
  const pods = new Map<ContenderName, Pods>();
  for (const name of names) pods.set(name, await addPods(lab, name));
  for (const [name, own] of pods) {
    try {
      opened.contenders.push(await openOne(lab, name, own, certificates));
    } catch (error) {
      opened.notes.set(name, String(error));
    }
  }
  return opened;
}

/** Another gateway in a lab of its own, which gives its agents further options. */
export async function openGatewayIn(lab: Lab, agentArguments: string[]): Promise<Contender> {
  return await openGateway(lab, await addPods(lab, "gateway"), agentArguments);
}

async function openOne(
  lab: Lab,
  name: ContenderName,
  pods: Pods,
  certificates: Certificates,
): Promise<Contender> {
  const { temporary } = lab;
  switch (name) {
    case "direct":
      return openDirect(pods);
    case "gateway":
      return await openGateway(lab, pods);
    case "haproxy":
      return await openHaproxy(temporary, certificates, pods.own, false);
    case "haproxy-resumed":
      return await openHaproxy(temporary, certificates, pods.own, true);
    case "nginx":
      return await openNginx(temporary, certificates, pods.own);
    case "stunnel":
      return await openStunnel(temporary, certificates, pods.own);
  }
}

async function addPods(lab: Lab, name: ContenderName): Promise<Pods> {
  const own = await addPair(lab, name, name);
  // A proxy stands in one pod, and serves this pod's neighbour's part as well.
  const isForAll = name === "direct" || name === "gateway";
  return { own, neighbours: isForAll ? await addPair(lab, name, `${name}-neighbour`) : own };
}

async function addPair(lab: Lab, name: ContenderName, prefix: string): Promise<Pair> {
  const annotation = name === "gateway" ? "true" : undefined;
  const [client, server] = await lab.addPods([
    { name: `${prefix}-client`, node: "node-a", annotation },
    { name: `${prefix}-server`, node: "node-b", annotation },
  ]);
  if (!client || !server) throw new Error(`the lab has not made the pods of ${prefix}`);
  for (const pod of [client, server]) await pod.run(["sh", "-c", SETTINGS]);
  await startServers(server, lab.temporary);
  return [client, server];
}

/** New connections in great number: their ports are taken again, and there are enough of them. */
const SETTINGS = `echo 30000 65535 > /proc/sys/net/ipv4/ip_local_port_range
echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse`;
