/** The agent: starts its parts in the order in which they need each other, connects them, and stops them. */
import { existsSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { knownUids } from "./control/births.ts";
import { openClusterDirectory } from "./control/cluster/directory.ts";
import type { ClusterObjects } from "./control/cluster/objects.ts";
import { type Desired, desiredState } from "./control/desired.ts";
import { Enrolments } from "./control/enrolments.ts";
import { Peers } from "./control/peers.ts";
import { openInProcessIssuer } from "./identity/in_process.ts";
import { Redirector, removeState } from "./kernel/redirector.ts";
import { logger } from "./log.ts";
import { isBpfFileSystem, mountBpfFileSystem, unmount } from "./native/file_system.ts";
import { askStatus, serveAdmin } from "./operate/admin.ts";
import { agentStatus } from "./operate/status.ts";
import { RelayWorkers } from "./relay/workers.ts";

const log = logger("agent");

export interface AgentOptions {
  readonly nodeName: string;
  /** The directory that plays the API server. */
  readonly cluster: string;
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

/** Runs until `stop` resolves, then detaches every pod and leaves nothing behind. */
export async function runAgent(options: AgentOptions, stop: Promise<void>): Promise<void> {
  await requireNoOtherAgent(options.adminSocket);
  const mounted = prepareStateDirectory(options.stateDirectory);
  const redirector = new Redirector(options.objectFile, options.stateDirectory);
  forgetEarlierPods(redirector);
  const workers = new RelayWorkers({
    count: options.workers,
    flows: redirector.flows.descriptor,
    origins: redirector.origins.descriptor,
    trustDomain: options.trustDomain,
    log: ({ level, message, fields }) => relayLog[level](message, fields),
    died: (reason) => {
      // What is attached stays attached: connections to peers are refused until a new agent is here.
      log.fatal("a relay worker ended: {reason}", { reason });
      Deno.exit(1);
    },
  });
  const issuer = await openInProcessIssuer({
    directory: `${options.cluster}/ca`,
    trustDomain: options.trustDomain,
    ttlSeconds: options.certificateSeconds,
  });
  const cluster = openClusterDirectory({ directory: options.cluster, nodeName: options.nodeName });
  const peers = new Peers(redirector.peers, workers);
  // An agent that comes back must not withdraw pods that it has not had the time to enrol again.
  let settled = false;
  const enrolments = new Enrolments(options.nodeName, options.cgroupRoot, {
    redirector,
    workers,
    issuer,
    procRoot: options.procRoot,
    publish: async () => {
      if (settled) await cluster.publish(enrolments.entries());
    },
  });

  let desired: Desired | undefined;
  const changed = async (objects: ClusterObjects) => {
    desired = desiredState(objects, options.nodeName, options.trustDomain);
    // What an earlier agent left is taken away only when everything has been read: a part is no evidence.
    const first = objects.complete && !settled;
    if (first) detachUnwanted(redirector, desired);
    await peers.set(desired.peers, objects.complete);
    const known = knownUids(objects, options.nodeName);
    await enrolments.reconcile(desired.enrolments, known, objects.complete);
    if (!first) return;
    settled = true;
    await cluster.publish(enrolments.entries());
  };
  const failed = (error: unknown) =>
    log.error("reconciling failed: {error}", { error: String(error) });
  await cluster.start((objects) => void changed(objects).catch(failed));
  const admin = serveAdmin(options.adminSocket, () =>
    agentStatus({
      nodeName: options.nodeName,
      trustDomain: options.trustDomain,
      desired,
      enrolments: enrolments.list(),
      peers: peers.list(),
      problems: cluster.problems(),
      reports: () => workers.report(),
    }));
  log.info("the agent of {node} is ready", { node: options.nodeName, workers: options.workers });

  await stop;
  log.info("stopping");
  await admin.shutdown();
  await enrolments.stop();
  await cluster.publish([]);
  await cluster.close();
  workers[Symbol.dispose]();
  redirector[Symbol.dispose]();
  removeState(options.stateDirectory);
  if (mounted !== undefined) unmount(mounted);
}

const relayLog = logger("relay");

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

function detachUnwanted(redirector: Redirector, desired: Desired): void {
  for (const uid of redirector.attached()) {
    if (!desired.enrolments.has(uid)) redirector.detach(uid);
  }
}
