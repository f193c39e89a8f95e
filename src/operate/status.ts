import type { ClusterProblem } from "../control/cluster/cluster.ts";
import type { Desired, Peer } from "../control/desired.ts";
import type { Enrolment } from "../control/enrolment.ts";
import type { PodReport } from "../relay/messages.ts";

/** What an agent says of itself: the answer of `GET /status`, printed by `kube-gateway status`. */
export interface AgentStatus {
  readonly node: string;
  readonly trustDomain: string;
  readonly pid: number;
  /** Bytes of resident memory. */
  readonly memory: number;
  readonly enrolments: readonly EnrolmentStatus[];
  readonly peers: readonly Peer[];
  /** What is wrong with the cluster's objects. */
  readonly problems: readonly { readonly where: string; readonly message: string }[];
}

export interface EnrolmentStatus {
  /** `namespace/name`. */
  readonly pod: string;
  readonly uid: string;
  readonly state: Enrolment["state"] | "refused";
  /** Why it is not active. */
  readonly reason?: string;
  readonly identity?: string;
  readonly addresses: readonly string[];
  readonly certificate?: { readonly serial: string; readonly notAfter: string };
  readonly traffic?: Omit<PodReport, "uid">;
}

/** Where the facts of a status come from. */
export interface StatusSources {
  readonly nodeName: string;
  readonly trustDomain: string;
  readonly desired: Desired | undefined;
  readonly enrolments: readonly Enrolment[];
  readonly peers: readonly Peer[];
  readonly problems: readonly ClusterProblem[];
  readonly reports: () => Promise<Map<string, PodReport>>;
}

export async function agentStatus(sources: StatusSources): Promise<AgentStatus> {
  const reports = await sources.reports();
  const { desired } = sources;
  return {
    node: sources.nodeName,
    trustDomain: sources.trustDomain,
    pid: Deno.pid,
    memory: Deno.memoryUsage().rss,
    enrolments: [
      ...sources.enrolments.map((enrolment) => statusOf(enrolment, reports)),
      ...(desired?.refused ?? []).map(({ uid, namespace, name, reason }) => ({
        pod: `${namespace}/${name}`,
        uid,
        state: "refused" as const,
        reason,
        addresses: [],
      })),
    ].sort((a, b) => a.pod < b.pod ? -1 : 1),
    peers: sources.peers,
    problems: [
      ...sources.problems.map(({ file, line, message }) => ({
        where: line === undefined ? file : `${file}:${line}`,
        message,
      })),
      ...(desired?.refusedEntries ?? []).map(({ slice, reason }) => ({
        where: slice,
        message: reason,
      })),
      ...(desired?.conflicts ?? []).map(({ address, winner, reason }) => ({
        where: address,
        message: `several pods claim this address; ${winner.pod} is believed: ${reason}`,
      })),
    ],
  };
}

function statusOf(enrolment: Enrolment, reports: Map<string, PodReport>): EnrolmentStatus {
  const { wanted, certificate, state, reason } = enrolment;
  const report = reports.get(wanted.uid);
  return {
    pod: enrolment.name,
    uid: wanted.uid,
    state,
    ...(reason === undefined || state === "active" ? {} : { reason }),
    identity: wanted.identity,
    addresses: enrolment.addresses,
    ...(certificate === undefined ? {} : {
      certificate: { serial: certificate.serial, notAfter: certificate.notAfter.toISOString() },
    }),
    ...(report === undefined ? {} : { traffic: withoutUid(report) }),
  };
}

function withoutUid({ uid: _uid, ...traffic }: PodReport): Omit<PodReport, "uid"> {
  return traffic;
}
