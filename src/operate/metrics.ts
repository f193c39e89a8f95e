import { Counter, Gauge, Registry } from "prom-client";
import { collectProcessMetrics } from "./process_metrics.ts";
import type { AgentStatus } from "./status.ts";
import type { RelayReport } from "../relay/workers.ts";
import { NO_TRAFFIC, sumOf } from "../relay/traffic.ts";

/**
 * The agent's metrics in Prometheus' text format. No label is a pod's or a peer's: how many series
 * there are does not depend on how many of them there are.
 */
export class Metrics {
  readonly #registry = new Registry();
  readonly contentType = this.#registry.contentType;

  readonly #enrolments = this.#gauge("enrolments", "Annotated pods of this node, by state.", [
    "state",
  ]);
  readonly #peers = this.#gauge("peers", "Addresses of enrolled pods in the cluster.");
  readonly #services = this.#gauge("services", "Services that routing knows.");
  readonly #frontends = this.#gauge(
    "frontends",
    "Addresses and ports of Services whose connections are redirected.",
  );
  readonly #endpoints = this.#gauge("service_endpoints", "Endpoints of the Services.");
  readonly #streamsOpen = this.#gauge(
    "streams_open",
    "Application connections that are relayed now.",
  );
  readonly #tunnelsOpen = this.#gauge(
    "tunnels_open",
    "Outbound mutual TLS connections, idle ones too.",
  );
  readonly #oldest = this.#gauge(
    "certificate_oldest_age_seconds",
    "Age of the oldest certificate in use.",
  );
  readonly #soonest = this.#gauge(
    "certificate_soonest_expiry_seconds",
    "Time until the first certificate in use expires; negative when it has.",
  );
  readonly #silence = this.#gauge(
    "api_server_silence_seconds",
    "Time since the API server was last heard of; its bookmarks come every minute.",
  );
  readonly #unread = this.#gauge(
    "unread_lists",
    "Lists of the API server that cannot be read though it answers: what has changed there is not known.",
  );
  readonly #problems = this.#gauge("problems", "What kube-gateway status lists as problems.");
  readonly #memory = this.#gauge("resident_memory_bytes", "Resident memory of the agent.");
  readonly #streams = this.#counter("streams_total", "Application connections that were relayed.");
  readonly #plainStreams = this.#counter(
    "plain_streams_total",
    "Of these, those in clear to Services' endpoints that are not enrolled.",
  );
  readonly #retries = this.#counter(
    "retries_total",
    "How often another endpoint of a Service was tried.",
  );
  readonly #handshakes = this.#counter(
    "handshakes_total",
    "Mutual TLS handshakes that succeeded, by key exchange group.",
    ["group"],
  );
  readonly #bytes = this.#counter(
    "bytes_total",
    "Bytes of applications, by direction from the pod.",
    [
      "direction",
    ],
  );
  readonly #refused = this.#counter("refused_total", "Connections that were refused, by reason.", [
    "reason",
  ]);

  readonly #dryRun = this.#counter(
    "dry_run_total",
    "Connections that would have been refused, if it were no dry run, by annotation.",
    ["annotation"],
  );

  readonly #repairs = this.#counter(
    "repairs_total",
    "How often something in the kernel was found wrong and put right, by kind.",
    ["kind"],
  );

  constructor() {
    collectProcessMetrics(this.#registry);
  }

  /** @param report of the same moment as `status`. */
  async text(status: AgentStatus, { pods, past }: RelayReport): Promise<string> {
    const traffic = [...pods.values()].reduce(sumOf, sumOf(past, NO_TRAFFIC));
    for (const state of STATES) {
      const count = status.enrolments.filter((each) => each.state === state).length;
      this.#enrolments.set({ state }, count);
    }
    this.#peers.set(status.peerCount);
    this.#services.set(status.services);
    this.#frontends.set(status.frontends);
    this.#endpoints.set(status.endpoints);
    this.#streamsOpen.set(traffic.streamsOpen);
    this.#tunnelsOpen.set(traffic.tunnelsOpen);
    this.#silence.set(status.silentSeconds);
    this.#unread.set(status.unreadLists.length);
    this.#problems.set(status.problems.length);
    this.#memory.set(status.memory);
    this.#setCertificates(status);

    // The workers count; a counter here is only how the format writes their sums.
    for (
      const counter of [
        this.#streams,
        this.#plainStreams,
        this.#retries,
        this.#handshakes,
        this.#bytes,
        this.#refused,
        this.#dryRun,
        this.#repairs,
      ]
    ) counter.reset();
    this.#streams.inc(traffic.streams);
    this.#plainStreams.inc(traffic.plainStreams);
    this.#retries.inc(traffic.retries);
    for (const [group, count] of Object.entries(traffic.groups)) {
      this.#handshakes.inc({ group }, count);
    }
    this.#bytes.inc({ direction: "sent" }, traffic.bytesSent);
    this.#bytes.inc({ direction: "received" }, traffic.bytesReceived);
    for (const [reason, count] of Object.entries(traffic.refused)) {
      this.#refused.inc({ reason }, count);
    }
    this.#dryRun.inc({ annotation: "allow" }, traffic.wouldRefuse);
    for (const { wouldRefuseInKernel = {} } of status.enrolments) {
      const { inbound_dry_run: inbound = 0, egress_dry_run: egress = 0 } = wouldRefuseInKernel;
      this.#dryRun.inc({ annotation: "inbound" }, inbound);
      this.#dryRun.inc({ annotation: "egress" }, egress);
    }
    for (const [kind, count] of Object.entries(status.repairs)) this.#repairs.inc({ kind }, count);
    return await this.#registry.metrics();
  }

  #setCertificates({ enrolments }: AgentStatus): void {
    const now = Date.now();
    const certificates = enrolments.flatMap(({ certificate }) => certificate ?? []);
    const seconds = (times: string[]) => times.map((time) => (Date.parse(time) - now) / 1000);
    this.#oldest.set(Math.max(0, ...seconds(certificates.map((c) => c.notBefore)).map((s) => -s)));
    const expiries = seconds(certificates.map(({ notAfter }) => notAfter));
    if (expiries.length === 0) this.#soonest.remove();
    else this.#soonest.set(Math.min(...expiries));
  }

  #gauge<const L extends string = never>(
    name: string,
    help: string,
    labelNames: L[] = [],
  ): Gauge<L> {
    return new Gauge({
      name: `kube_gateway_${name}`,
      help,
      labelNames,
      registers: [this.#registry],
    });
  }

  #counter<const L extends string = never>(
    name: string,
    help: string,
    labelNames: L[] = [],
  ): Counter<L> {
    return new Counter({
      name: `kube_gateway_${name}`,
      help,
      labelNames,
      registers: [this.#registry],
    });
  }
}

const STATES = ["waiting", "enrolling", "active", "leaving", "refused"] as const;
