/**
 * The inbound side of a pod, in the order a connection takes:
 *
 *   accept      a peer's relay connects to the pod's tunnel port
 *   handshake   the client's chain and identity are verified
 *   OPEN        which port of the pod, and for which client address, which must be the certificate's own
 *   dial        the application is connected from inside the pod, with the client's address noted for it
 *   stream      ACCEPT, then bytes both ways; after both ENDs the tunnel waits for the next OPEN
 */
import { formatAddress } from "../../addresses.ts";
import { TUNNEL_PORT } from "../../constants.ts";
import { IdentityError } from "../../identity/reasons.ts";
import { type PeerIdentity, requireClient } from "../../identity/verify.ts";
import { EPOLLERR, EPOLLHUP } from "../../native/epoll.ts";
import { EACCES, ECONNREFUSED, errnoName, ETIMEDOUT, SystemError } from "../../native/errno.ts";
import { type Socket, text } from "../../native/socket.ts";
import { type Endpoint, isIpv4 } from "../../native/socket_address.ts";
import { allowingRule, policyText } from "../../policy.ts";
import { ApplicationDial } from "./application_dial.ts";
import type { Expiring } from "../loop/deadlines.ts";
import { FRAME, FrameError, type Open } from "../tunnel/frame.ts";
import type { Handler } from "../loop/event_loop.ts";
import type { KnownPeer } from "../loop/known_peers.ts";
import type { ConnectionReport } from "../messages.ts";
import type { Connection, RelayPod } from "./pod.ts";
import { Stream } from "./stream.ts";
import { ALL_EVENTS, Tunnel, type TunnelOwner } from "../tunnel/tunnel.ts";
import type { UnopenedTunnel } from "../loop/unopened.ts";

const HANDSHAKE_MILLISECONDS = 10_000;
const OPEN_MILLISECONDS = 5_000;
const DIAL_MILLISECONDS = 10_000;
/** How long a tunnel may wait for its next stream. */
const IDLE_MILLISECONDS = 120_000;

/** Takes a connection to the pod's tunnel port. `local` is the pod's address it was made to. */
export function acceptInbound(
  pod: RelayPod,
  socket: Socket,
  source: Endpoint,
  local: Uint8Array,
): void {
  if (pod.isFull) {
    socket.reset();
    return pod.refuse(
      "too_many_connections",
      "refused a tunnel: too many connections are open (--max-connections)",
      {
        source: text(source),
      },
    );
  }
  new Inbound(pod, socket, source, local);
}

/**
 * One tunnel of the inbound side and the stream it carries.
 *
 *     handshake ─► idle ─ OPEN ─► dialling ─ ACCEPT ─► streaming ─ END, END ─► idle
 *                                     └───── REFUSE ──────────────────────────► idle
 */
class Inbound implements Connection, TunnelOwner, UnopenedTunnel, Handler, Expiring {
  readonly #tunnel: Tunnel;
  #identity: PeerIdentity | undefined;
  #state: "handshake" | "idle" | "dialling" | "streaming" = "handshake";
  #open: Open | undefined;
  #hasOpened = false;
  #isRetired = false;
  #dialling: ApplicationDial | undefined;
  #stream: Stream | undefined;
  #streamBegan = 0;
  /** What the registry said of the last stream's client. */
  #client: KnownPeer | undefined;
  /** The pod's credentials that the handshake was made with. */
  readonly #epoch: number;

  constructor(
    readonly pod: RelayPod,
    socket: Socket,
    readonly source: Endpoint,
    readonly local: Uint8Array,
  ) {
    const { worker } = pod;
    this.#epoch = pod.epoch;
    const session = worker.engine.session(pod.context, "server");
    this.#tunnel = new Tunnel(worker, socket, session, "server", this);
    pod.opened(this);
    worker.unopened.add(this);
    pod.counters.tunnelsOpen++;
    worker.loop.deadlines.arm(this, HANDSHAKE_MILLISECONDS);
  }

  get accepting(): boolean {
    if (this.#state === "dialling") return false;
    return this.#stream?.accepting ?? true;
  }

  secured(tunnel: Tunnel): void {
    using certificate = tunnel.session.peerCertificate();
    this.#identity = this.pod.worker.identityOf(certificate);
    this.pod.secured(tunnel, certificate.secondsLeft());
    this.#state = "idle";
    this.#rearm(OPEN_MILLISECONDS);
  }

  open(open: Open): void {
    if (this.#state !== "idle" || this.#identity === undefined) {
      throw new FrameError(`unexpected OPEN while ${this.#state}`);
    }
    const client = formatAddress(open.client.address);
    requireClient(this.#identity, client, this.#registered(open.client.address));
    if (isIpv4(open.client.address) !== isIpv4(this.local)) {
      throw new FrameError("the client's address is of another family than the tunnel");
    }
    this.#hasOpened = true;
    this.pod.worker.unopened.delete(this);
    this.pod.worker.loop.deadlines.disarm(this);
    this.#open = open;
    if (
      open.port === 0 || open.port === TUNNEL_PORT ||
      open.port === this.pod.description.outboundPort
    ) {
      return this.#refuseStream(ECONNREFUSED, "the port is the relay's own");
    }
    const denial = this.#denial(open.port);
    if (denial !== undefined) return this.#refuseStream(EACCES, denial, "policy_denied");
    this.#dial(open);
  }

  data(start: number, length: number): void {
    if (this.#stream === undefined) throw new FrameError(`DATA while ${this.#state}`);
    this.#stream.data(start, length);
  }

  end(): void {
    if (this.#stream === undefined) throw new FrameError(`END while ${this.#state}`);
    this.#stream.end();
  }

  /** The tunnel is not used again after anything but two ENDs. */
  reset(): void {
    this.#end("reset by the client");
  }

  accept(): void {
    throw new FrameError("unexpected ACCEPT");
  }

  refuse(): void {
    throw new FrameError("unexpected REFUSE");
  }

  batchEnd(): void {
    this.#stream?.deliver();
  }

  drained(): void {
    if (this.#isRetired) this.#end();
    else this.#stream?.drained();
  }

  lost(reason: string, error?: unknown): void {
    // A tunnel that ends between two streams has served its purpose.
    if (this.#state !== "idle" || !this.#hasOpened || error !== undefined) {
      this.pod.refuse(
        error instanceof IdentityError ? error.reason : `${this.#state}_failed`,
        `the tunnel failed: ${reason}`,
        this.#fields(),
      );
    }
    this.#end(reason);
  }

  expired(): void {
    if (this.#state === "dialling") {
      return this.#refuseStream(ETIMEDOUT, "connecting took too long");
    }
    if (this.#hasOpened) {
      // What the last stream has sent may be on its way to a slow reader.
      return this.#tunnel.congested ? this.#rearm(IDLE_MILLISECONDS) : this.#end();
    }
    // A client's burst may have ended before all the tunnels that it had asked for were there.
    if (this.#state === "idle" && this.#tunnel.atFrameBorder) return this.#end();
    const what = this.#state === "handshake" ? "the TLS handshake" : "OPEN";
    this.pod.refuse("deadline", `the client took too long for ${what}`, this.#fields());
    this.#end();
  }

  /** An event of the application's socket while it is being connected. */
  ready(events: number): void {
    if (this.#dialling === undefined) return;
    const error = (events & (EPOLLERR | EPOLLHUP)) === 0 ? 0 : this.#dialling.socket.takeError();
    if (error !== 0) return this.#refuseStream(error, `the application: ${errnoName(error)}`);
    this.#startStream(this.#dialling, events);
  }

  failed(error: unknown): void {
    this.pod.refuse("internal", `internal error: ${error}`, this.#fields());
    this.#end();
  }

  evict(): void {
    const message =
      "dropped a tunnel that has not sent OPEN yet for a newer one: there are too many";
    this.pod.refuse("too_many_handshakes", message, this.#fields());
    this.#end();
  }

  abort(): void {
    this.#end("the pod or its agent is going");
  }

  enforce(): void {
    if (this.#state === "idle") {
      // Who comes back proves again who he is, to what the pod trusts by now.
      if (this.#isOutdated && this.#hasOpened) this.#retire();
      return;
    }
    if (this.#open === undefined) return;
    const denial = this.#denial(this.#open.port);
    if (denial === undefined) return;
    this.pod.refuse("policy_denied", `cut a stream: ${denial}`, this.#fields());
    this.#end("the policy does not allow it any more");
  }

  describe(): ConnectionReport | undefined {
    const [open, identity, tls] = [this.#open, this.#identity, this.#tunnel.tls];
    if (open === undefined || identity === undefined || tls === undefined) return undefined;
    const { description } = this.pod;
    return {
      direction: "inbound",
      worker: this.pod.worker.load.own,
      pod: description.name,
      identity: description.identity,
      state: this.#state === "streaming"
        ? "streaming"
        : this.#state === "idle"
        ? "idle"
        : "opening",
      client: text(open.client),
      destination: text({ address: this.local, port: open.port }),
      dialled: text(open.dialled),
      milliseconds: performance.now() - this.#streamBegan,
      bytesSent: this.#stream?.bytesSent ?? 0,
      bytesReceived: this.#stream?.bytesReceived ?? 0,
      peer: formatAddress(open.client.address),
      peerIdentity: identity.id,
      tls,
    };
  }

  /** Connects from inside the pod; the client's address is noted before the SYN can be sent. */
  #dial(open: Open): void {
    const { pod, local } = this;
    let dial: ApplicationDial;
    try {
      dial = ApplicationDial.start(pod, { address: local, port: open.port }, open.client);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      return this.#refuseStream(error.errno, error.message);
    }
    this.#state = "dialling";
    this.#streamBegan = performance.now();
    this.#dialling = dial;
    this.#rearm(DIAL_MILLISECONDS);
    pod.worker.loop.register(dial.socket.descriptor, ALL_EVENTS, this);
  }

  #startStream(dial: ApplicationDial, events: number): void {
    const { pod } = this;
    this.#dialling = undefined;
    pod.worker.loop.deadlines.disarm(this);
    this.#state = "streaming";
    pod.counters.streams++;
    pod.counters.streamsOpen++;
    const stream: Stream = new Stream(pod.worker, dial.socket, {
      abandoned: () => this.#end(),
      released: (clean) => this.#released(clean),
      closed: (reason) => this.#streamClosed(stream, dial, reason),
    });
    this.#stream = stream;
    pod.worker.loop.replace(dial.socket.descriptor, stream);
    this.#tunnel.send(FRAME.ACCEPT);
    if (this.#stream === stream) stream.start(this.#tunnel, events);
  }

  #streamClosed(stream: Stream, dial: ApplicationDial, reason: string | undefined): void {
    const { worker, counters } = this.pod;
    counters.streamsOpen--;
    counters.bytesSent += stream.bytesSent;
    counters.bytesReceived += stream.bytesReceived;
    dial.forgetClient();
    worker.access?.finished(reason, () => {
      const { bytesSent, bytesReceived } = stream;
      const report = this.describe();
      return report === undefined ? undefined : { ...report, bytesSent, bytesReceived };
    });
  }

  #released(clean: boolean): void {
    this.#stream = undefined;
    this.#state = "idle";
    if (!clean) return this.#end();
    this.#rearm(IDLE_MILLISECONDS);
    if (this.#isOutdated || this.pod.worker.load.shouldShed) this.#retire();
  }

  /** No other stream is to be carried: ends as soon as the last one's bytes are out. */
  #retire(): void {
    if (this.#tunnel.congested) this.#isRetired = true;
    else this.#end();
  }

  /** The SPIFFE ID that the registry names for an address. The next stream of a tunnel is usually the same pod's. */
  #registered(address: Uint8Array): string | undefined {
    const { peers } = this.pod.worker;
    const last = this.#client;
    if (last === undefined || last.version !== peers.version || !sameBytes(last.address, address)) {
      this.#client = peers.find(address);
    }
    return this.#client?.identity;
  }

  get #isOutdated(): boolean {
    return this.#epoch !== this.pod.epoch;
  }

  /** Why the pod's policy keeps the client from this port, if it does. */
  #denial(port: number): string | undefined {
    const { policy } = this.pod.settings;
    if (policy === undefined || this.#identity === undefined) return undefined;
    if (allowingRule(policy, this.#identity, port) !== undefined) return undefined;
    const reason = `kube-gateway.io/allow (${policyText(policy)}) does not allow ` +
      `${this.#identity.id} on port ${port} of ${this.pod.description.identity}`;
    if (!policy.dryRun) return reason;
    this.pod.note("policy_dry_run", `would have refused a stream: ${reason}`, this.#fields());
    return undefined;
  }

  #refuseStream(errno: number, message: string, code = "application_refused"): void {
    this.pod.refuse(code, `refused a stream: ${message}`, this.#fields());
    this.#closeDial();
    this.#rearm(IDLE_MILLISECONDS);
    this.#state = "idle";
    this.#tunnel.sendRefuse(errno);
    // What came behind OPEN was left unread; the loop calls, since this may be inside a read already.
    this.pod.worker.loop.again(this.#tunnel);
  }

  /** Everything ends here that is not clean. */
  #end(reason = "the tunnel ended"): void {
    const { pod } = this;
    pod.worker.loop.deadlines.disarm(this);
    pod.worker.unopened.delete(this);
    if (pod.closed(this)) pod.counters.tunnelsOpen--;
    this.#closeDial();
    this.#tunnel.close();
    const stream = this.#stream;
    this.#stream = undefined;
    stream?.reset(reason);
  }

  #closeDial(): void {
    if (this.#dialling === undefined) return;
    this.pod.worker.loop.forget(this.#dialling.socket.descriptor);
    this.#dialling[Symbol.dispose]();
    this.#dialling = undefined;
  }

  #rearm(milliseconds: number): void {
    this.pod.worker.loop.deadlines.arm(this, milliseconds);
  }

  #fields(): Record<string, string | number> {
    const fields: Record<string, string | number> = { source: text(this.source) };
    if (this.#identity !== undefined) fields.identity = this.#identity.id;
    if (this.#open !== undefined) {
      fields.port = this.#open.port;
      fields.client = text(this.#open.client);
    }
    return fields;
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, index) => byte === b[index]);
}
