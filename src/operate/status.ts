import { DENY_LIST } from "../cluster/deny_list.ts";
import type { ClusterProblem } from "../cluster/cluster.ts";
import type { ClusterObjects } from "../cluster/cluster.ts";
import { formatAddress } from "../addresses.ts";
import type { GuardCount } from "../kernel/guard_counts.ts";
import { text } from "../native/socket.ts";
import { type RefusalCounts, refusalsOf } from "../control/audit/refusal_log.ts";
import type { KernelRefusal } from "../kernel/refusals.ts";
import type { Audit, AuditReport } from "../control/audit/audit.ts";
import type { Desired } from "../control/rules/desired.ts";
import type { Routing } from "../control/routing/routing.ts";
import type { PeerIndex } from "../control/rules/peer_index.ts";
import type { Peer } from "../cluster/registry.ts";
import type { Enrolments } from "../control/pods/enrolments.ts";
import type { Enrolment } from "../control/pods/enrolment.ts";
import type { ConnectionLimit } from "./connection_limit.ts";
import type { Strictness } from "../kernel/maps.ts";
import { policyText } from "../policy.ts";
import type { PodReport } from "../relay/messages.ts";
import type { RelayReport } from "../relay/workers.ts";

/** What an agent says of itself: the answer of `GET /status`, printed by `kube-gateway status`. */
export interface AgentStatus {
  readonly node: string;
  readonly trustDomain: string;
  readonly pid: number;
  /** Bytes of resident memory. */
  readonly memory: number;
  readonly enrolments: readonly EnrolmentStatus[];
  readonly peerCount: number;
  /** The first thousand. */
  readonly peers: readonly Peer[];
  /** What routing knows of the cluster's Services. */
  readonly services: number;
  readonly endpoints: number;
  /** Addresses and ports of Services whose connections are redirected. */
  readonly frontends: number;
  /** Open connections of all pods together, at most. */
  readonly maxConnections: number;
  /** Seconds since the API server was last heard of. */
  readonly silentSeconds: number;
  /** Lists of the API server that cannot be read for a while though it answers, by name. */
  readonly unreadLists: readonly string[];
  /** What the agent has seen when it last looked whether it is so; absent before the first look. */
  readonly audit?: AuditStatus;
  /** How often something was found wrong and put right since the agent started, by kind. */
  readonly repairs: Readonly<Record<string, number>>;
  /** What is wrong with the cluster's objects, or in the kernel. */
  readonly problems: readonly { readonly where: string; readonly message: string }[];
}

/** What went in clear to peers; the most of it to those that are named. */
export interface PlaintextStatus {
  readonly packets: number;
  /** What applications have sent: nothing of it opens, acknowledges or ends a connection. */
  readonly payloadBytes: number;
  readonly peers: readonly {
    /** An address, or {@link OTHER_PEERS}. */
    readonly peer: string;
    readonly protocol: "tcp" | "udp";
    readonly payloadBytes: number;
    /** The first packet's ends, and when it was, RFC 3339. */
    readonly first: string;
    readonly since: string;
  }[];
}

/** An audit, as people read it. */
export interface AuditStatus {
  /** RFC 3339. */
  readonly at: string;
  readonly secondsAgo: number;
  /** How many pods and maps were looked at. */
  readonly parts: number;
  readonly findings: AuditReport["findings"];
}

/** The answer of `GET /audit`, printed by `kube-gateway audit`. */
export interface AgentAudit extends AuditStatus {
  readonly node: string;
}

export interface EnrolmentStatus {
  /** `namespace/name`. */
  readonly pod: string;
  readonly uid: string;
  readonly state: Enrolment["state"] | "refused";
  /** Why it is not active, or why it is not Secured although it is. */
  readonly reason?: string;
  readonly identity?: string;
  readonly addresses: readonly string[];
  readonly inbound?: Strictness;
  readonly egress?: Strictness;
  /** Who may connect, when not every identity of the trust domain may. */
  readonly allow?: string;
  readonly certificate?: {
    readonly serial: string;
    readonly notBefore: string;
    readonly notAfter: string;
  };
  /**
   * When a handshake with the pod's own port has succeeded last, RFC 3339; absent: not yet, or it
   * has failed since.
   */
  readonly proved?: string;
  /**
   * Connections with peers that are older than the enrolment and go on in clear; more, if
   * `isComplete` is false.
   */
  /**
   * What it has sent to peers outside the tunnel since it was enrolled, as the kernel has counted
   * it.
   */
  readonly plaintext?: PlaintextStatus;
  readonly olderConnections?: { readonly count: number; readonly isComplete: boolean };
  /**
   * Connections that the kernel has refused to the pod since its programs were attached, by reason.
   */
  readonly refusedInKernel?: RefusalCounts;
  /** Those that it would have refused, if inbound or egress were strict in place of a dry run. */
  readonly wouldRefuseInKernel?: RefusalCounts;
  readonly traffic?: Omit<PodReport, "uid">;
}

/** Where the facts of a status come from. */
export interface StatusSources {
  readonly nodeName: string;
  readonly trustDomain: string;
  readonly limit: ConnectionLimit;
  readonly objects: ClusterObjects | undefined;
  readonly desired: Desired | undefined;
  readonly enrolments: Pick<Enrolments, "list" | "problems">;
  readonly peers: Pick<PeerIndex, "size" | "conflicts" | "contradictions" | typeof Symbol.iterator>;
  /** Milliseconds. */
  readonly silence: number;
  readonly problems: readonly ClusterProblem[];
  /** Why the roots in use are not those that the cluster names. */
  readonly trustProblem: string | undefined;
  readonly routing: Pick<Routing, "frontendCount" | "problems">;
  readonly audit: Pick<Audit, "last" | "repairs">;
  readonly refusals: readonly KernelRefusal[];
  readonly report: RelayReport;
}

export function agentStatus(sources: StatusSources): AgentStatus {
  const { pods: reports } = sources.report;
  const { desired, objects } = sources;
  const enrolments = sources.enrolments.list();
  return {
    node: sources.nodeName,
    trustDomain: sources.trustDomain,
    pid: Deno.pid,
    memory: Deno.memoryUsage().rss,
    enrolments: [
      ...enrolments.map((enrolment) => ({
        ...statusOf(enrolment, reports, toldOf(objects, enrolment)),
        ...refusalsOf(sources.refusals, enrolment.cgroupId),
      })),
      ...(desired?.refused ?? []).map(({ uid, namespace, name, reason }) => ({
        pod: `${namespace}/${name}`,
        uid,
        state: "refused" as const,
        reason,
        addresses: [],
      })),
    ].sort((a, b) => a.pod < b.pod ? -1 : 1),
    peerCount: sources.peers.size,
    peers: [...take(sources.peers, MAX_PEERS)],
    services: objects?.services.size ?? 0,
    endpoints: [...objects?.endpoints.values() ?? []].reduce(
      (sum, { endpoints }) => sum + endpoints.length,
      0,
    ),
    frontends: sources.routing.frontendCount,
    maxConnections: sources.limit.connections,
    silentSeconds: Math.round(sources.silence / 1000),
    unreadLists: (objects?.unread ?? []).map(({ name }) => name),
    ...(sources.audit.last === undefined ? {} : { audit: auditStatus(sources.audit.last) }),
    repairs: Object.fromEntries(sources.audit.repairs),
    problems: [
      ...silenceProblem(sources.silence),
      ...limitProblem(sources.limit),
      ...sources.problems.map(({ file, line, message }) => ({
        where: line === undefined ? file : `${file}:${line}`,
        message,
      })),
      ...sources.routing.problems().map(({ where, message }) => ({ where, message })),
      ...sources.enrolments.problems(),
      ...(sources.audit.last?.findings ?? []).map(({ where, what }) => ({ where, message: what })),
      ...(objects?.denied.problems ?? []).map((message) => ({ where: DENY_LIST, message })),
      ...sources.trustProblem === undefined
        ? []
        : [{ where: "trust bundle", message: sources.trustProblem }],
      ...enrolments.flatMap(({ name, renewalProblem }) =>
        renewalProblem === undefined ? [] : [{ where: name, message: renewalProblem }]
      ),
      ...enrolments.flatMap(({ name, settings }) =>
        settings.problems.map((message) => ({ where: name, message }))
      ),
      ...(objects?.registry ?? []).flatMap(({ refused }) => refused).map(({ slice, reason }) => ({
        where: slice,
        message: reason,
      })),
      ...sources.peers.contradictions(),
      ...sources.peers.conflicts().map(({ address, winner, reason }) => ({
        where: address,
        message: `several pods claim this address; ${winner.pod} is believed: ${reason}`,
      })),
    ],
  };
}

/** An audit's report as `status` and `audit` print it. */
export function auditStatus({ at, findings, parts }: AuditReport): AuditStatus {
  const secondsAgo = Math.round((Date.now() - at) / 1000);
  return { at: new Date(at).toISOString(), secondsAgo, parts, findings };
}

/**
 * Why an active pod's condition is not True, as the API server has it; undefined where it is, or
 * nobody keeps one.
 */
function toldOf(
  objects: ClusterObjects | undefined,
  { state, wanted }: Enrolment,
): string | undefined {
  const secured = objects?.pods.find(({ uid }) => uid === wanted.uid)?.secured;
  if (state !== "active" || secured === undefined || secured.status === "True") return undefined;
  return `its condition is not True: ${secured.message}`;
}

function statusOf(
  enrolment: Enrolment,
  reports: ReadonlyMap<string, PodReport>,
  told: string | undefined,
): EnrolmentStatus {
  const { wanted, certificate, state, settings, proved, older, plaintext } = enrolment;
  const reason = enrolment.reason ?? told;
  const report = reports.get(wanted.uid);
  return {
    pod: enrolment.name,
    uid: wanted.uid,
    state,
    ...(reason === undefined ? {} : { reason }),
    identity: wanted.identity,
    addresses: enrolment.addresses,
    inbound: settings.inbound,
    egress: settings.egress,
    ...(settings.policy === undefined ? {} : { allow: policyText(settings.policy) }),
    ...(certificate === undefined ? {} : {
      certificate: {
        serial: certificate.serial,
        notBefore: certificate.notBefore.toISOString(),
        notAfter: certificate.notAfter.toISOString(),
      },
    }),
    ...(proved === undefined ? {} : { proved: new Date(proved).toISOString() }),
    ...(state === "active"
      ? { olderConnections: older, plaintext: plaintextStatus(plaintext) }
      : {}),
    ...(report === undefined ? {} : { traffic: withoutUid(report) }),
  };
}

/**
 * Of TCP: UDP is not encrypted, and not promised to be. What cgroup and device have both seen is
 * counted once.
 */
function plaintextStatus(counts: readonly GuardCount[]): PlaintextStatus {
  const byPeer = new Map<string, GuardCount>();
  for (const count of counts) {
    if (count.protocol !== "tcp") continue;
    const peer = count.peer === undefined ? OTHER_PEERS : formatAddress(count.peer);
    if ((byPeer.get(peer)?.packets ?? -1) < count.packets) byPeer.set(peer, count);
  }
  const most = [...byPeer].sort(([, a], [, b]) => b.payloadBytes - a.payloadBytes);
  return {
    packets: most.reduce((sum, [, { packets }]) => sum + packets, 0),
    payloadBytes: most.reduce((sum, [, { payloadBytes }]) => sum + payloadBytes, 0),
    peers: most.slice(0, MAX_PLAINTEXT_PEERS).map(([peer, { protocol, payloadBytes, first }]) => ({
      peer,
      protocol,
      payloadBytes,
      first: `${text(first.source)} to ${text(first.destination)}`,
      since: new Date(first.atMilliseconds).toISOString(),
    })),
  };
}

function withoutUid({ uid: _uid, ...traffic }: PodReport): Omit<PodReport, "uid"> {
  return traffic;
}

function limitProblem({ problem }: ConnectionLimit): AgentStatus["problems"] {
  return problem === undefined ? [] : [{ where: "descriptors", message: problem }];
}

/** Bookmarks come at least every 75 s. */
function silenceProblem(silence: number): AgentStatus["problems"] {
  if (silence < 120_000) return [];
  const seconds = Math.round(silence / 1000);
  return [{
    where: "API server",
    message: `silent for ${seconds} s: enrolled pods go on, changes are not seen`,
  }];
}

function* take<T>(items: Iterable<T>, most: number): Generator<T> {
  let count = 0;
  for (const item of items) {
    if (count++ >= most) return;
    yield item;
  }
}

const MAX_PEERS = 1000;
const MAX_PLAINTEXT_PEERS = 10;

/** Those that the kernel has not counted singly, because the pod had sent to many. */
const OTHER_PEERS = "other peers";
