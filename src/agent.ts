/** The agent: starts its parts in the order in which they need each other, connects them, and stops them. */
import { existsSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import type { Cluster } from "./cluster/cluster.ts";
import { GATEWAY_NAMESPACE } from "./constants.ts";
import { NodeControl } from "./control/node_control.ts";
import { NodeAddresses } from "./control/routing/node_addresses.ts";
import { PeerIndex } from "./control/rules/peer_index.ts";
import type { StrictEgressOptions } from "./control/routing/strict_egress.ts";
import type { Issuer } from "./identity/issuer.ts";
import { Redirector, removeState } from "./kernel/redirector.ts";
import { openKubernetesApi } from "./kubernetes/open.ts";
import type { ListenAddress } from "./listen_address.ts";
import { logger, logSentence } from "./log.ts";
import { Certificate } from "./native/certificate.ts";
import { allowDescriptors } from "./native/descriptor_limit.ts";
import { isBpfFileSystem, mountBpfFileSystem, unmount } from "./native/file_system.ts";
import { logStreams } from "./operate/access_log.ts";
import { askStatus, serveAdmin } from "./operate/admin.ts";
import { serveProbes } from "./operate/probes.ts";
import { agentConnections } from "./operate/connections.ts";
import { type AgentStatus, agentStatus } from "./operate/status.ts";
import { type RelayReport, RelayWorkers } from "./relay/workers.ts";

const log = logger("agent");

export interface AgentOptions extends StrictEgressOptions {
  readonly nodeName: string;
  readonly source: AgentSource;
  readonly trustDomain: string;
  readonly certificateSeconds: number;
  /** On a bpffs, or to become one. */
  readonly stateDirectory: string;
  readonly cgroupRoot: string;
  readonly procRoot: string;
  /** Handlers of RuntimeClasses that have a guest kernel, beside those that are known to. */
  readonly guestRuntimes: readonly string[];
  readonly workers: number;
  /** How long a tunnel may wait for its next stream; 0: no tunnel is used twice. */
  readonly tunnelIdleSeconds: number;
  /** Open connections of all pods together. */
  readonly maxConnections: number;
  /** One in so many finished streams is logged, failed ones always; 0: none. */
  readonly accessLogEvery: number;
  readonly adminSocket: string;
  /** Where probes and metrics are served; undefined: nowhere. */
  readonly metricsAddress: ListenAddress | undefined;
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
  allowConnections(options.maxConnections);
  const source = await openSource(options);
  const { cluster } = source;
  const mounted = prepareStateDirectory(options.stateDirectory);
  const redirector = new Redirector(options.objectFile, options.stateDirectory);
  const index = new PeerIndex(options.nodeName);
  // The workers know peers by address; people know pods.
  const podAt = (address: string | number | undefined) =>
    typeof address === "string" ? index.get(address)?.pod : undefined;
  const workers = new RelayWorkers({
    count: options.workers,
    maps: redirector.descriptors(),
    trustDomain: options.trustDomain,
    tunnelIdleMilliseconds: options.tunnelIdleSeconds * 1000,
    maxConnections: Math.ceil(options.maxConnections / options.workers),
    accessLogEvery: options.accessLogEvery,
    finished: (streams, left) => logStreams(streams, left, podAt),
    log: ({ level, message, fields }) =>
      logSentence(relayLog, level, message, { ...fields, peer: podAt(fields.peer) ?? fields.peer }),
    died: (reason) => {
      // What is attached stays attached: connections to peers are refused until a new agent is here.
      log.fatal("a relay worker ended: {reason}", { reason });
      Deno.exit(1);
    },
  });
  using _nodeAddresses = new NodeAddresses(redirector.nodeAddresses, options.procRoot);
  const control = new NodeControl(options, { redirector, workers, index, ...source });
  source.onTrust((roots) => control.enrolments.trust(roots));
  const started = cluster.start((objects) => control.changed(objects));
  const status = (report: RelayReport) =>
    agentStatus({
      nodeName: options.nodeName,
      trustDomain: options.trustDomain,
      objects: control.objects,
      desired: control.desired,
      enrolments: control.enrolments,
      peers: index,
      silence: cluster.silence,
      problems: cluster.problems(),
      routing: control.routing,
      audit: control.audit,
      report,
    });
  const probes = await openProbes(options.metricsAddress, control, workers, status);
  await Promise.race([started, stop]);
  if (isReplaced) await untilAlone(options.adminSocket, stop);
  forgetEarlierPods(redirector);
  control.begin();
  const admin = serveAdmin(options.adminSocket, {
    status: async () => status(await workers.report()),
    connections: async () => {
      const { connections, count } = await workers.connections();
      return agentConnections(options.nodeName, connections, count, podAt);
    },
  });
  log.info("the agent of {node} is ready", { node: options.nodeName, workers: options.workers });

  await stop;
  const isLast = cluster.isBeingUninstalled();
  log.info(isLast ? "stopping" : "stopping; the pods stay held for the next agent");
  await control.end(isLast);
  await admin.shutdown(); // another agent may begin now
  await Promise.all([probes?.shutdown(), cluster.close(), source.close()]);
  workers[Symbol.dispose]();
  redirector[Symbol.dispose]();
  if (!isLast) return;
  removeState(options.stateDirectory);
  if (mounted !== undefined) unmount(mounted);
}

/** For listeners, maps and files. */
const OTHER_DESCRIPTORS = 8_192;

/** Each takes a descriptor for the application and one for the tunnel. */
function allowConnections(most: number): void {
  const wanted = 2 * most + OTHER_DESCRIPTORS;
  const allowed = allowDescriptors(wanted);
  if (allowed >= wanted) return;
  log.warn("{allowed} descriptors are allowed, not {wanted}: some {connections} connections", {
    allowed,
    wanted,
    connections: Math.max(0, Math.floor((allowed - OTHER_DESCRIPTORS) / 2)),
  });
}

interface Source {
  readonly cluster: Cluster;
  readonly issuer: Issuer;
  /** The listener is called with the roots when the trust bundle has changed. */
  readonly onTrust: (listener: (roots: Uint8Array[]) => void) => void;
  readonly close: () => Promise<void>;
}

async function openSource(options: AgentOptions): Promise<Source> {
  const { source, nodeName, trustDomain, certificateSeconds: ttlSeconds } = options;
  if ("directory" in source) {
    const { directory } = source;
    const { openClusterDirectory } = await import("./standalone/directory.ts");
    const { openInProcessIssuer } = await import("./standalone/in_process.ts");
    return {
      cluster: openClusterDirectory({ directory, nodeName, trustDomain }),
      issuer: await openInProcessIssuer({ directory: `${directory}/ca`, trustDomain, ttlSeconds }),
      onTrust: () => {}, // its CA stays the same
      close: () => Promise.resolve(),
    };
  }
  const { openKubernetesCluster } = await import("./cluster/kubernetes.ts");
  const { openCertificateRequestIssuer } = await import("./identity/certificate_request_issuer.ts");
  const { daemonSet, signerName } = source;
  const api = await openKubernetesApi(source.kubeconfig);
  let trust = (_roots: Uint8Array[]) => {};
  const issuer = openCertificateRequestIssuer({
    api,
    nodeName,
    namespace: GATEWAY_NAMESPACE,
    signerName,
    trustDomain,
    ttlSeconds,
    leafFacts: (der) => {
      using certificate = Certificate.parse(der);
      return certificate.leafFacts();
    },
    onTrustBundle: (roots) => trust(roots),
  });
  return {
    cluster: openKubernetesCluster({ api, nodeName, trustDomain, daemonSet }),
    issuer,
    onTrust: (listener) => void (trust = listener),
    close: async () => {
      await issuer.close();
      api[Symbol.dispose]();
    },
  };
}

/** Prometheus' client is loaded only where somebody asks. */
async function openProbes(
  address: ListenAddress | undefined,
  control: NodeControl,
  workers: RelayWorkers,
  status: (report: RelayReport) => AgentStatus,
): Promise<Deno.HttpServer | undefined> {
  if (address === undefined) return undefined;
  const { Metrics } = await import("./operate/metrics.ts");
  const metrics = new Metrics();
  return serveProbes(address, {
    sick: async () => {
      const answered = await within(WORKER_MILLISECONDS, workers.report());
      return answered === undefined ? "a relay worker has not answered for 2 s" : undefined;
    },
    notReady: () => control.notReady(),
    metrics: async () => {
      const report = await workers.report();
      return { contentType: metrics.contentType, text: await metrics.text(status(report), report) };
    },
  });
}

/** Undefined when it takes longer. */
async function within<T>(milliseconds: number, answer: Promise<T>): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), milliseconds);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

const WORKER_MILLISECONDS = 2_000;

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
