/** The agent: starts its parts in the order in which they need each other, connects them, and stops them. */
import { existsSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import type { Cluster } from "./control/cluster/cluster.ts";
import { openClusterDirectory } from "./control/cluster/directory.ts";
import { NodeControl } from "./control/node_control.ts";
import { PeerIndex } from "./control/peer_index.ts";
import { openInProcessIssuer } from "./identity/in_process.ts";
import type { Issuer } from "./identity/issuer.ts";
import { Redirector, removeState } from "./kernel/redirector.ts";
import { logger } from "./log.ts";
import { isBpfFileSystem, mountBpfFileSystem, unmount } from "./native/file_system.ts";
import { askStatus, serveAdmin } from "./operate/admin.ts";
import { agentStatus } from "./operate/status.ts";
import { RelayWorkers } from "./relay/workers.ts";

const log = logger("agent");

export interface AgentOptions {
  readonly nodeName: string;
  readonly source: AgentSource;
  readonly trustDomain: string;
  readonly certificateSeconds: number;
  /** On a bpffs, or to become one. */
  readonly stateDirectory: string;
  readonly cgroupRoot: string;
  readonly procRoot: string;
  readonly workers: number;
  readonly adminSocket: string;
  /** The compiled eBPF object. */
  readonly objectFile: string;
}

/** Where the cluster's objects and the certificates come from. */
export type AgentSource =
  /** A directory that plays the API server; the certificates are signed in this process. */
  | { readonly directory: string }
  | {
    /** Undefined: the cluster that this process runs in. */
    readonly kubeconfig: string | undefined;
    readonly daemonSet: string | undefined;
    readonly signerName: string;
  };

/**
 * Runs until `stop` resolves. If this agent was the last one here, it then detaches every pod and leaves nothing
 * behind; if another follows, the pods stay attached, and held until that one is there.
 */
export async function runAgent(options: AgentOptions, stop: Promise<void>): Promise<void> {
  const isReplaced = "daemonSet" in options.source && options.source.daemonSet !== undefined;
  if (!isReplaced) await requireNoOtherAgent(options.adminSocket);
  const mounted = prepareStateDirectory(options.stateDirectory);
  const redirector = new Redirector(options.objectFile, options.stateDirectory);
  const index = new PeerIndex(options.nodeName);
  const workers = new RelayWorkers({
    count: options.workers,
    peers: redirector.peers.descriptor,
    identities: redirector.identities.descriptor,
    flows: redirector.flows.descriptor,
    origins: redirector.origins.descriptor,
    trustDomain: options.trustDomain,
    log: ({ level, message, fields }) =>
      relayLog[level](message, { ...fields, ...podOf(index, fields.peer) }),
    died: (reason) => {
      // What is attached stays attached: connections to peers are refused until a new agent is here.
      log.fatal("a relay worker ended: {reason}", { reason });
      Deno.exit(1);
    },
  });
  const { cluster, issuer } = await openSource(options);
  const node = new NodeControl(options, { redirector, workers, cluster, issuer, index });
  const started = cluster.start((objects) => node.changed(objects));
  if (isReplaced) await untilAlone(options.adminSocket, stop);
  forgetEarlierPods(redirector);
  node.begin();
  const status = () =>
    agentStatus({
      nodeName: options.nodeName,
      trustDomain: options.trustDomain,
      objects: node.objects,
      desired: node.desired,
      enrolments: node.enrolments.list(),
      peers: index,
      silence: cluster.silence,
      problems: cluster.problems(),
      reports: () => workers.report(),
    });
  const admin = serveAdmin(options.adminSocket, status);
  await Promise.race([started, stop]);
  log.info("the agent of {node} is ready", { node: options.nodeName, workers: options.workers });

  await stop;
  const isLast = cluster.isBeingUninstalled();
  log.info(isLast ? "stopping" : "stopping; the pods stay held for the next agent");
  await admin.shutdown();
  await node.end(isLast);
  await cluster.close();
  workers[Symbol.dispose]();
  redirector[Symbol.dispose]();
  if (!isLast) return;
  removeState(options.stateDirectory);
  if (mounted !== undefined) unmount(mounted);
}

async function openSource(options: AgentOptions): Promise<{ cluster: Cluster; issuer: Issuer }> {
  const { source, nodeName, trustDomain, certificateSeconds: ttlSeconds } = options;
  if ("directory" in source) {
    const { directory } = source;
    return {
      cluster: openClusterDirectory({ directory, nodeName, trustDomain }),
      issuer: await openInProcessIssuer({ directory: `${directory}/ca`, trustDomain, ttlSeconds }),
    };
  }
  throw new Error("TODO");
}

/** Waits until the agent that is to be replaced has gone, or `stop`. */
async function untilAlone(adminSocket: string, stop: Promise<void>): Promise<void> {
  let stopped = false;
  void stop.then(() => stopped = true);
  for (let told = false; !stopped; told = true) {
    const other = await askStatus(adminSocket).catch(() => undefined);
    if (other === undefined) return;
    if (!told) log.info("standing by for process {pid} on this node", { pid: other.pid });
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const relayLog = logger("relay");

/** The workers know peers by address; people know pods. */
function podOf(index: PeerIndex, address: string | number | undefined): { peer?: string } {
  const pod = typeof address === "string" ? index.get(address)?.pod : undefined;
  return pod === undefined ? {} : { peer: pod };
}

/** Two agents with the same paths would take each other's pods away. */
async function requireNoOtherAgent(adminSocket: string): Promise<void> {
  const other = await askStatus(adminSocket).catch(() => undefined); // nobody, or a crashed one's socket
  if (other === undefined) return;
  throw new Error(
    `the agent of ${other.node} (process ${other.pid}) answers on ${adminSocket} already: stop it, or ` +
      "give this one an --admin-socket and a --state-dir of its own",
  );
}

/**
 * Pins need a bpffs, which the system usually mounts on /sys/fs/bpf: where there is none, mounts one and
 * returns where.
 */
function prepareStateDirectory(directory: string): string | undefined {
  let mounted: string | undefined;
  let existing = directory;
  while (!existsSync(existing)) existing = dirname(existing);
  if (!isBpfFileSystem(existing)) {
    // sysfs lets nobody make directories, but has this one to mount a bpffs on.
    const target = existing === "/sys/fs/bpf" ? existing : directory;
    mkdirSync(target, { recursive: true, mode: 0o700 });
    mountBpfFileSystem(target);
    mounted = target;
    log.warn("{directory} was not on a bpffs: mounted one on {target}", { directory, target });
  }
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  return mounted;
}

/** After a crash, pods stay attached but held: their old listeners are gone, and so may be their addresses. */
function forgetEarlierPods(redirector: Redirector): void {
  for (const cookie of redirector.pods.keys()) redirector.pods.delete(cookie);
  for (const key of redirector.origins.keys()) redirector.origins.delete(key);
  for (const key of redirector.flows.keys()) redirector.flows.delete(key);
}
