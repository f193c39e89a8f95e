import { parseAddress } from "../../addresses.ts";
import type { NetworkNamespace } from "../../native/namespace.ts";
import { Socket } from "../../native/socket.ts";
import { isIpv4 } from "../../native/socket_address.ts";
import type { Certificate } from "../../native/certificate.ts";
import { leadsToOne } from "../../native/verify_chain.ts";
import { TlsContext } from "../../native/tls_context.ts";
import type {
  ConnectionReport,
  PodDescription,
  PodReport,
  RelayCredentials,
  RelaySettings,
} from "../messages.ts";
import { LogBudget, ofOne, POD_LINES, Suppressed } from "../../log_budget.ts";
import { namespaceOf } from "../../names.ts";
import { sameBytes } from "../../same.ts";
import { ForwardedPorts } from "./forwarded_ports.ts";
import { TunnelPool } from "../tunnel/pool.ts";
import type { Tunnel } from "../tunnel/tunnel.ts";
import { TlsError } from "../../native/tls_session.ts";
import type { TunnelPod } from "../tunnel/tunnel_pod.ts";
import type { Direction, PodShare, Unused } from "../loop/connection_shares.ts";
import { TurnShare } from "../loop/turn_share.ts";
import type { WorkerContext } from "../loop/worker_context.ts";

/** Something of a pod that must end with it: a listener's connection, in any state. */
export interface Connection {
  readonly direction: Direction;
  /** Ends at once; the application sees a reset. */
  abort(): void;
  /** The pod's settings or credentials have changed: ends if it could not begin any more. */
  enforce(): void;
  /**
   * Whether its peer seems to be nobody any more. Ends when it has seemed so the time before, too.
   */
  review(): boolean;
  /** Others are trusted by now: ends if its peer's certificate is not. */
  verifyAgain(isTrusted: (leaf: Certificate) => boolean): void;
  /** For people; undefined before there is anything to say. */
  describe(): ConnectionReport | undefined;
}

/**
 * An enrolled pod as one worker has it: where its sockets are made, what it shows, what is open.
 */
export class RelayPod implements TunnelPod, Disposable {
  readonly #connections = new Set<Connection>();
  readonly #share: PodShare;
  readonly #lines: LogBudget;
  readonly #suppressed = new Suppressed();
  readonly counters = {
    streams: 0,
    streamsOpen: 0,
    plainStreams: 0,
    retries: 0,
    tunnelsOpen: 0,
    handshakes: 0,
    bytesSent: 0,
    bytesReceived: 0,
    wouldRefuse: 0,
  };
  readonly refused = new Map<string, number>();
  readonly #groups = new Map<string, number>();
  /** Outbound tunnels that no stream uses. */
  readonly pool = new TunnelPool(this);
  readonly forwardedPorts = new ForwardedPorts();
  /** Its tunnels' share of the worker's time. */
  readonly turns: TurnShare;
  /** Inbound connections that come from its own address and are open, in any state. */
  fromItself = 0;
  /** Kubernetes' namespace, whose shares it uses; `namespace` is the network's. */
  readonly tenant: string;
  readonly ipv4: Uint8Array | undefined;
  readonly ipv6: Uint8Array | undefined;
  context: TlsContext;
  /** When the certificate expires, in milliseconds since 1970. */
  notAfter: number;
  settings: RelaySettings;
  /** DER. */
  #roots: readonly Uint8Array[];
  /** Counts the credentials that the pod has had. */
  epoch = 0;

  /** @param namespace lent by the main thread, so never disposed of here. */
  constructor(
    readonly worker: WorkerContext,
    readonly description: PodDescription,
    credentials: RelayCredentials,
    readonly namespace: Pick<NetworkNamespace, "run">,
  ) {
    this.turns = new TurnShare(worker.loop);
    this.settings = description.settings;
    this.notAfter = credentials.notAfter;
    this.#roots = credentials.roots;
    const addresses = description.addresses.map(parseAddress);
    this.ipv4 = addresses.find(isIpv4);
    this.ipv6 = addresses.find((address) => !isIpv4(address));
    this.context = new TlsContext(credentials, worker.engine.protocol);
    this.tenant = namespaceOf(description.name);
    this.#share = worker.shares.enter(this.tenant);
    this.#lines = new LogBudget(ofOne(worker.load.workers, POD_LINES));
  }

  /** From the next handshake on; sessions hold on to the context they began with. */
  renew(credentials: RelayCredentials): void {
    const next = new TlsContext(credentials, this.worker.engine.protocol);
    this.context[Symbol.dispose]();
    this.context = next;
    this.notAfter = credentials.notAfter;
    this.epoch++;
    this.pool.closeIdle();
    this.#enforce();
    const { roots } = credentials;
    const isTrustChanged = roots.length !== this.#roots.length ||
      !roots.every((root, index) => sameBytes(root, this.#roots[index] ?? new Uint8Array()));
    this.#roots = roots;
    if (isTrustChanged) this.verifyAgain();
  }

  /** From the next connection on, and for those that are open now. */
  adjust(settings: RelaySettings): void {
    this.settings = settings;
    this.#enforce();
  }

  /**
   * Whether some stream's peer seems to be nobody any more; those of which it has seemed so before
   * end.
   */
  review(): boolean {
    let isSuspicious = false;
    for (const connection of [...this.#connections]) {
      isSuspicious = connection.review() || isSuspicious;
    }
    return isSuspicious;
  }

  /** Ends the streams whose peer is not trusted any more. */
  verifyAgain(): void {
    // The same few peers have most streams.
    const verdicts = new Map<string, boolean>();
    const isTrusted = (leaf: Certificate) => {
      const digest = leaf.digest();
      const verdict = verdicts.get(digest) ??
        (leadsToOne(leaf, this.#roots) && !this.worker.isDenied(leaf));
      verdicts.set(digest, verdict);
      return verdict;
    };
    for (const connection of [...this.#connections]) connection.verifyAgain(isTrusted);
  }

  /** A socket in the pod's namespace that the pod's programs do not see: it is the agent's own. */
  socketFor(address: Uint8Array): Socket {
    return this.namespace.run(() => Socket.forAddress(address));
  }

  /** The pod's own address of the same family, if it has one. */
  ownAddress(like: Uint8Array): Uint8Array | undefined {
    return isIpv4(like) ? this.ipv4 : this.ipv6;
  }

  /** Whether an address, canonical text, is the pod's own. */
  isOwn(address: string): boolean {
    return this.description.addresses.includes(address);
  }

  /** Those that are open, in any state. */
  get connections(): ReadonlySet<Connection> {
    return this.#connections;
  }

  /** Whether one more connection may be opened; ends one that is unused for it. */
  makeRoom(direction: Direction): boolean {
    return this.#share.makeRoom(direction);
  }

  opened(connection: Connection): void {
    this.#connections.add(connection);
    this.#share.opened(connection.direction);
  }

  /** Nobody uses an inbound connection now: it is given up when others need its place. */
  unused(connection: Connection & Unused): void {
    this.#share.unused.add(connection);
  }

  /** It is used again. */
  inUse(connection: Connection & Unused): void {
    this.#share.unused.delete(connection);
  }

  /** False when it had been closed before. */
  closed(connection: Connection): boolean {
    const isNews = this.#connections.delete(connection);
    if (isNews) this.#share.closed(connection.direction);
    return isNews;
  }

  /**
   * Notes on a tunnel what its handshake has agreed on and until when that is good, and counts it
   * if it is to be. Throws when the pod's own certificate has expired.
   */
  secured(tunnel: Tunnel, peerSecondsLeft: number, isCounted = true): void {
    const { group } = tunnel.agreed(peerSecondsLeft, this.notAfter);
    if (!tunnel.current) {
      throw new TlsError("the certificate of the pod or of its peer has expired");
    }
    if (!isCounted) return;
    this.counters.handshakes++;
    this.#groups.set(group, (this.#groups.get(group) ?? 0) + 1);
  }

  /** Counts and logs a connection that was not let through. `reason` is a stable code. */
  refuse(reason: string, message: string, fields: Record<string, string | number> = {}): void {
    this.refused.set(reason, (this.refused.get(reason) ?? 0) + 1);
    this.#warn(reason, message, fields);
  }

  /** Counts and logs a stream that a policy would have refused, if it were no dry run. */
  wouldRefuse(message: string, fields: Record<string, string | number>): void {
    this.counters.wouldRefuse++;
    this.#warn("policy_dry_run", message, fields);
  }

  /** Takes the line from the pod's share, and then from its namespace's. */
  #warn(reason: string, message: string, fields: Record<string, string | number>): void {
    const now = this.worker.now();
    const isTaken = this.#lines.take(now) && this.worker.logShares.take(this.tenant, now);
    const said = this.#suppressed.say(isTaken, { pod: this.description.name, reason, ...fields });
    if (said !== undefined) this.worker.logAlways("warning", message, said);
  }

  #enforce(): void {
    for (const connection of [...this.#connections]) connection.enforce();
  }

  report(): PodReport {
    return {
      uid: this.description.uid,
      ...this.counters,
      groups: Object.fromEntries(this.#groups),
      refused: Object.fromEntries(this.refused),
    };
  }

  [Symbol.dispose](): void {
    this.pool.close();
    for (const connection of [...this.#connections]) connection.abort();
    this.#share.leave();
    this.context[Symbol.dispose]();
  }
}
