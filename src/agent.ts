/**
 * The agent: starts its parts in the order in which they need each other, connects them, and stops
 * them.
 */
import { statSync } from "node:fs";
import type { Cluster, ClusterObjects } from "./cluster/cluster.ts";
import { GATEWAY_NAMESPACE } from "./constants.ts";
import { NodeControl } from "./control/node_control.ts";
import { NodeAddresses } from "./control/routing/node_addresses.ts";
import { PeerIndex } from "./control/rules/peer_index.ts";
import type { StrictEgressOptions } from "./control/routing/strict_egress.ts";
import type { Issuer } from "./identity/issuer.ts";
import type { HttpServer } from "./http_server.ts";
import { Redirector } from "./kernel/redirector.ts";
import { StateDirectory } from "./kernel/state_directory.ts";
import { openKubernetesApi } from "./kubernetes/open.ts";
import type { ListenAddress } from "./listen_address.ts";
import { logger, logSentence } from "./log.ts";
import { isCgroup2 } from "./native/file_system.ts";
import { logStreams } from "./operate/access_log.ts";
import { serveAdmin } from "./operate/admin.ts";
import { standBy, takeCharge } from "./operate/charge.ts";
import { type ConnectionLimit, limitConnections } from "./operate/connection_limit.ts";
import { serveProbes } from "./operate/probes.ts";
import { agentConnections } from "./operate/connections.ts";
import { type AgentStatus, agentStatus, auditStatus } from "./operate/status.ts";
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
  /** What pods have that say nothing of it, nor their namespaces, as annotations. */
  readonly defaults: Readonly<Record<string, string>>;
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
 * Runs until `stop` resolves. If this agent was the last one here, it then detaches every pod and
 * leaves nothing behind; if another follows, the pods stay attached, and held until that one is
 * there. What ends with an Error before any pod is in its charge leaves nothing behind, either.
 */
export async function runAgent(options: AgentOptions, stop: Promise<void>): Promise<void> {
  requireCgroup2(options.cgroupRoot);
  const limit = limitConnections(options.maxConnections, options.workers);
  // Ended in the opposite order: whoever comes next has to wait for all of it.
  await using parts = new AsyncDisposableStack();
  const state = parts.use(new StateDirectory(options.stateDirectory));
  const isReplaced = "daemonSet" in options.source && options.source.daemonSet !== undefined;
  if (!isReplaced) await takeCharge(state, options.adminSocket);
  const source = await openSource(options);
  parts.defer(source.close);
  const { cluster } = source;
  parts.defer(() => cluster.close());

  let objects: ClusterObjects | undefined = undefined;
  let node: RunningNode | undefined = undefined;
  const started = cluster.start((now) => {
    objects = now;
    node?.control.changed(now);
  });
  if (options.metricsAddress !== undefined) {
    // Answered also while another agent is here: that one ends when this one is ready to follow.
    const notReady = () =>
      objects === undefined ? "the cluster's objects have not been read yet" : undefined;
    parts.use(await openProbes(options.metricsAddress, () => node, notReady));
  }
  await Promise.race([started, stop]);
  if (isReplaced && !await standBy(state, options.adminSocket, stop)) return;

  node = openNode(options, state, source, limit, parts);
  const { control, workers, status, podAt } = node;
  if (objects !== undefined) control.changed(objects);
  parts.use(serveAdmin(options.adminSocket, {
    "/status": async () => status(await workers.report()),
    "/audit": async () => ({
      node: options.nodeName,
      ...auditStatus(await control.audit.run(true)),
    }),
    "/connections": async () => {
      const { connections, count } = await workers.connections();
      return agentConnections(options.nodeName, connections, count, podAt);
    },
  }));
  control.begin();
  state.isObsolete = false;
  log.info("the agent of {node} is ready", { node: options.nodeName, workers: options.workers });

  await stop;
  const isLast = cluster.isBeingUninstalled();
  log.info(isLast ? "stopping" : "stopping; the pods stay held for the next agent");
  await control.end(isLast);
  state.isObsolete = isLast;
}

function requireCgroup2(root: string): void {
  if (isCgroup2(root)) return;
  throw new Error(
    `${root} is not on cgroup v2: without --cgroup-root, the mounted one is taken (mount -t cgroup2)`,
  );
}

/** What there is once the node's state is in this agent's charge. */
interface RunningNode {
  readonly control: NodeControl;
  readonly workers: RelayWorkers;
  readonly status: (report: RelayReport) => AgentStatus;
  /** The pod at an address, for people. */
  readonly podAt: (address: string | number | undefined) => string | undefined;
}

/** `parts` ends what it opens. */
function openNode(
  options: AgentOptions,
  state: StateDirectory,
  source: Source,
  limit: ConnectionLimit,
  parts: AsyncDisposableStack,
): RunningNode {
  const { nodeName, trustDomain } = options;
  const { cluster } = source;
  const redirector = parts.use(new Redirector(options.objectFile, options.stateDirectory));
  forgetEarlierPods(redirector);
  const index = new PeerIndex(nodeName);
  // The workers know peers by address; people know pods.
  const podAt = (address: string | number | undefined) =>
    typeof address === "string" ? index.get(address)?.pod : undefined;
  const workers = parts.use(
    new RelayWorkers({
      count: options.workers,
      maps: redirector.descriptors(),
      trustDomain,
      tunnelIdleMilliseconds: options.tunnelIdleSeconds * 1000,
      maxConnections: Math.ceil(limit.connections / options.workers),
      accessLogEvery: options.accessLogEvery,
      finished: (streams, left) => logStreams(streams, left, podAt),
      log: ({ level, message, fields }) =>
        logSentence(relayLog, level, message, {
          ...fields,
          peer: podAt(fields.peer) ?? fields.peer,
        }),
      shown: (shown) => control.shown(shown),
      died: (reason) => {
        // What is attached stays attached: connections to peers are refused until a new agent is
        // here.
        log.fatal("a relay worker ended: {reason}", { reason });
        Deno.exit(1);
      },
    }),
  );
  const nodeAddresses = parts.use(
    new NodeAddresses(redirector.nodeAddresses, options.procRoot),
  );
  const control = new NodeControl(options, {
    redirector,
    workers,
    index,
    nodeAddresses,
    state,
    ...source,
  });
  source.onTrust((roots) => control.enrolments.trust(roots));
  const status = (report: RelayReport) =>
    agentStatus({
      nodeName,
      trustDomain,
      limit,
      objects: control.objects,
      desired: control.desired,
      enrolments: control.enrolments,
      peers: index,
      silence: cluster.silence,
      problems: [...cluster.problems(), ...control.problems()],
      trustProblem: source.issuer.trustProblem?.(),
      routing: control.routing,
      audit: control.audit,
      refusals: redirector.refusals.all(),
      report,
    });
  return { control, workers, status, podAt };
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
    if (statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) {
      throw new Error(
        `--cluster ${directory} is no directory: make it, or name the one that there is`,
      );
    }
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

/**
 * Prometheus' client is loaded only where somebody asks. `notReady` says why an agent cannot follow
 * another one yet, as long as `node` is not there.
 */
async function openProbes(
  address: ListenAddress,
  node: () => RunningNode | undefined,
  notReady: () => string | undefined,
): Promise<HttpServer> {
  const { Metrics } = await import("./operate/metrics.ts");
  const metrics = new Metrics();
  return serveProbes(address, {
    sick: async () => {
      const workers = node()?.workers;
      if (workers === undefined) return undefined;
      const answered = await within(WORKER_MILLISECONDS, workers.report());
      return answered === undefined ? "a relay worker has not answered for 2 s" : undefined;
    },
    notReady: () => {
      const running = node();
      return running === undefined ? notReady() : running.control.notReady();
    },
    metrics: async () => {
      const running = node();
      if (running === undefined) return undefined;
      const report = await running.workers.report();
      const text = await metrics.text(running.status(report), report);
      return { contentType: metrics.contentType, text };
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

const relayLog = logger("relay");

/**
 * After a crash, pods stay attached but held: their old listeners are gone, and so may be their
 * addresses.
 */
function forgetEarlierPods(redirector: Redirector): void {
  for (const cookie of redirector.pods.keys()) redirector.pods.delete(cookie);
  for (const key of redirector.origins.keys()) redirector.origins.delete(key);
  for (const key of redirector.flows.keys()) redirector.flows.delete(key);
}
