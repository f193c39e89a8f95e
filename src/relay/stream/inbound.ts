import { errorText } from "../../error_text.ts";
import { sameBytes } from "../../same.ts";
import { formatAddress } from "../../addresses.ts";
import { TUNNEL_PORT } from "../../constants.ts";
import { IdentityError } from "../../identity/reasons.ts";
import { type PeerIdentity, requireClient } from "../../identity/verify.ts";
import type { Certificate } from "../../native/certificate.ts";
import { EPOLLERR, EPOLLHUP } from "../../native/epoll.ts";
import {
  EACCES,
  ECONNREFUSED,
  EHOSTUNREACH,
  EINVAL,
  ENETUNREACH,
  EPERM,
  errnoName,
  ETIMEDOUT,
  isShortage,
  SystemError,
} from "../../native/errno.ts";
import { type Socket, text } from "../../native/socket.ts";
import { type Endpoint, isIpv4 } from "../../native/socket_address.ts";
import { allowingRule, policyText } from "../../policy.ts";
import { ApplicationDial } from "./application_dial.ts";
import type { Expiring } from "../loop/deadlines.ts";
import { FRAME, FrameError, type Open } from "../tunnel/frame.ts";
import type { Unused } from "../loop/connection_shares.ts";
import type { Handler } from "../loop/event_loop.ts";
import type { KnownPeer } from "../loop/known_peers.ts";
import type { ConnectionReport } from "../messages.ts";
import type { Connection, RelayPod } from "./pod.ts";
import { isOwnProof } from "./proof.ts";
import { Stream } from "./stream.ts";
import { ALL_EVENTS, Tunnel, type TunnelOwner } from "../tunnel/tunnel.ts";
import type { UnopenedTunnel } from "../loop/unopened.ts";

const HANDSHAKE_MILLISECONDS = 10_000;
const OPEN_MILLISECONDS = 5_000;
const DIAL_MILLISECONDS = 10_000;
/**
 * An application of the pod's own answers at once; what does not may be behind a forwarded port.
 */
const LOCAL_MILLISECONDS = 100;
/**
 * How long the registry may take to name a client, which may have been enrolled a moment ago, and
 * how often it is asked.
 */
const REGISTRY_MILLISECONDS = 5_000;
const ASK_AGAIN_MILLISECONDS = 200;
/** How long a tunnel may wait for its next stream. */
const IDLE_MILLISECONDS = 120_000;

type State =
  | { readonly name: "handshake" }
  /** `last`: of the stream before this pause; none before the first OPEN. */
  | { readonly name: "idle"; readonly identity: PeerIdentity; readonly last?: Request }
  /** The registry does not name the client yet. */
  | { readonly name: "unregistered"; readonly identity: PeerIdentity; readonly last: Request }
  | {
    readonly name: "dialling";
    readonly identity: PeerIdentity;
    readonly last: Request;
    readonly dial: ApplicationDial;
  }
  | {
    readonly name: "streaming";
    readonly identity: PeerIdentity;
    readonly last: Request;
    readonly stream: Stream;
  }
  /** Another stream is not taken; the tunnel ends when the last one's bytes are out. */
  | { readonly name: "retiring"; readonly identity: PeerIdentity; readonly last: Request }
  | { readonly name: "ended" };

/** OPEN, and when it came. */
interface Request extends Open {
  readonly began: number;
}

/**
 * One tunnel of the inbound side and the stream it carries.
 *
 *     handshake ─► idle ─ OPEN ─► unregistered ─► dialling ─ ACCEPT ─► streaming ─ END, END ─► idle or retiring
 *                   ▲                   └──── REFUSE ──┴──────────┐
 *                   └─────────────────────────────────────────────┘
 *
 * From every state: whatever else happens ends it.
 */
export class Inbound implements Connection, Unused, TunnelOwner, UnopenedTunnel, Handler, Expiring {
  readonly direction = "inbound";
  #state: State = { name: "handshake" };
  readonly #tunnel: Tunnel;
  /** What the registry said of the last stream's client. */
  #client: KnownPeer | undefined;
  /** What was wrong with the client at the last review. */
  #suspicion: string | undefined;
  /** An OPEN has come in the batch that is being read. */
  #isAnswering = false;
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
    this.#tunnel = new Tunnel(worker, socket, session, "server", this, pod.turns);
    pod.opened(this);
    if (isOwnProof(pod, source)) pod.fromItself++;
    worker.unopened.add(this);
    pod.counters.tunnelsOpen++;
    worker.loop.deadlines.arm(this, HANDSHAKE_MILLISECONDS);
  }

  // ---- handshake ----

  secured(tunnel: Tunnel): void {
    using certificate = tunnel.session.peerCertificate();
    const identity = this.pod.worker.identityOf(certificate);
    const proves = isOwnProof(this.pod, this.source, identity.id);
    this.pod.secured(tunnel, certificate.secondsLeft(), !proves);
    this.#state = { name: "idle", identity };
    this.#rearm(OPEN_MILLISECONDS);
  }

  // ---- idle ----

  open(open: Open): void {
    const state = this.#state;
    if (state.name !== "idle") throw new FrameError(`unexpected OPEN while ${state.name}`);
    // A client waits for the answer. Refusals without end would cost it nothing.
    if (this.#isAnswering) throw new FrameError("OPEN before the one before was answered");
    this.#isAnswering = true;
    const { identity } = state;
    const { worker } = this.pod;
    if (!this.#tunnel.current) return this.#expire();
    const client = formatAddress(open.client.address);
    const registered = this.#registered(open.client.address);
    this.#requireClient(identity, client, registered);
    if (isIpv4(open.client.address) !== isIpv4(this.local)) {
      throw new FrameError("the client's address is of another family than the tunnel");
    }
    worker.unopened.delete(this);
    this.pod.inUse(this);
    worker.loop.deadlines.disarm(this);
    const last = { ...open, began: worker.now() };
    this.#state = { name: "idle", identity, last };
    if (open.port === 0 && this.#proves) return this.#answerProof();
    if (this.#client !== undefined) return this.#admit(identity, last);
    this.#state = { name: "unregistered", identity, last };
    this.#rearm(ASK_AGAIN_MILLISECONDS);
  }

  #requireClient(identity: PeerIdentity, client: string, registered: string | undefined): void {
    this.pod.worker.shown(identity, client, registered, this.#tunnel.session);
    requireClient(identity, client, registered);
  }

  // ---- unregistered ----

  /** A certificate outlives its pod: who is not in the registry is nobody any more, or not yet. */
  #askAgain(identity: PeerIdentity, last: Request): void {
    const client = formatAddress(last.client.address);
    const registered = this.#registered(last.client.address);
    if (registered === undefined) {
      const waited = this.pod.worker.now() - last.began;
      if (waited < REGISTRY_MILLISECONDS) return this.#rearm(ASK_AGAIN_MILLISECONDS);
      const message = `the registry does not name the client ${client}`;
      return this.#refuseStream(EPERM, message, "client_not_registered");
    }
    this.pod.worker.loop.deadlines.disarm(this);
    this.#state = { name: "idle", identity, last };
    try {
      this.#requireClient(identity, client, registered);
    } catch (error) {
      return this.lost(errorText(error), error);
    }
    this.#admit(identity, last);
  }

  /** The client is who it says: the application may be connected, if the pod's policy allows it. */
  #admit(identity: PeerIdentity, last: Request): void {
    const { worker, description } = this.pod;
    const { port } = last;
    if (port === 0 || port === TUNNEL_PORT || port === description.outboundPort) {
      return this.#refuseStream(ECONNREFUSED, "the port is the relay's own");
    }
    const denial = this.#denial(identity, port);
    if (denial !== undefined) return this.#refuseStream(EACCES, denial, "policy_denied");
    const isForwarded = this.pod.forwardedPorts.has(port, worker.now());
    this.#dial(identity, last, isForwarded ? "pod" : "loopback");
  }

  // ---- dialling ----

  /** An event of the application's socket while it is being connected. */
  ready(events: number): void {
    const state = this.#state;
    if (state.name !== "dialling") return;
    const error = (events & (EPOLLERR | EPOLLHUP)) === 0 ? 0 : state.dial.socket.takeError();
    if (error === 0) return this.#startStream(state.identity, state.last, state.dial, events);
    if (state.dial.from === "loopback" && UNROUTABLE.has(error)) return this.#dialFromPod();
    this.#refuseStream(error, `the application at ${this.#destination}: ${errnoName(error)}`);
  }

  // ---- streaming ----

  get accepting(): boolean {
    const state = this.#state;
    if (state.name === "streaming") return state.stream.accepting;
    return state.name !== "dialling" && state.name !== "unregistered";
  }

  data(start: number, length: number): void {
    if (this.#state.name !== "streaming") throw new FrameError(`DATA while ${this.#state.name}`);
    this.#state.stream.data(start, length);
  }

  end(): void {
    if (this.#state.name !== "streaming") throw new FrameError(`END while ${this.#state.name}`);
    this.#state.stream.end();
  }

  batchEnd(): void {
    this.#isAnswering = false;
    if (this.#state.name === "streaming") this.#state.stream.deliver();
  }

  drained(): void {
    const state = this.#state;
    if (state.name === "retiring") this.#end();
    else if (state.name === "streaming") state.stream.drained();
    else if (state.name === "idle" && state.last !== undefined) this.pod.unused(this);
  }

  // ---- in any state ----

  /** The tunnel is not used again after anything but two ENDs. */
  reset(): void {
    this.#end("reset by the client", "cut");
  }

  accept(): void {
    throw new FrameError("unexpected ACCEPT");
  }

  refuse(): void {
    throw new FrameError("unexpected REFUSE");
  }

  lost(reason: string, error?: unknown): void {
    const state = this.#state;
    // A tunnel that ends between two streams has served its purpose; so has a proof.
    const isPaused = (state.name === "idle" && (state.last !== undefined || this.#proves)) ||
      state.name === "retiring";
    if (!isPaused || error !== undefined) {
      this.pod.refuse(
        error instanceof IdentityError ? error.reason : `${state.name}_failed`,
        `the tunnel failed: ${reason}`,
        this.#fields(),
      );
    }
    this.#end(reason);
  }

  expired(): void {
    const state = this.#state;
    switch (state.name) {
      case "unregistered":
        return this.#askAgain(state.identity, state.last);
      case "dialling":
        if (state.dial.from === "loopback") return this.#dialFromPod();
        return this.#refuseStream(ETIMEDOUT, `connecting to ${this.#destination} took too long`);
      case "handshake":
        return this.#tooSlow("the TLS handshake");
      case "idle":
        // A client's burst may have ended before all the tunnels that it had asked for were there.
        if (state.last === undefined && !this.#tunnel.atFrameBorder) return this.#tooSlow("OPEN");
    }
    // What the last stream has sent may be on its way to a slow reader.
    const isSending = "last" in state && state.last !== undefined && this.#tunnel.congested;
    if (isSending) this.#rearm(IDLE_MILLISECONDS);
    else this.#end();
  }

  failed(error: unknown): void {
    this.pod.refuse("internal", `internal error: ${errorText(error)}`, this.#fields());
    this.#end();
  }

  evict(): void {
    const message =
      "dropped a tunnel that has not sent OPEN yet for a newer one: there are too many";
    this.pod.refuse("too_many_handshakes", message, this.#fields());
    this.#end();
  }

  giveUp(): void {
    this.#end("its place is needed");
  }

  abort(): void {
    this.#end("the pod or its agent is going");
  }

  enforce(): void {
    const state = this.#state;
    if (state.name === "idle" && state.last !== undefined) {
      // Who comes back proves again who he is, to what the pod trusts by now.
      if (this.#isOutdated) this.#retire(state.identity, state.last);
    } else if (state.name === "dialling" || state.name === "streaming") {
      const denial = this.#denial(state.identity, state.last.port);
      if (denial === undefined) return;
      this.pod.refuse("policy_denied", `cut a stream: ${denial}`, this.#fields());
      this.#end("the policy does not allow it any more");
    }
  }

  review(): boolean {
    const state = this.#state;
    if (state.name !== "dialling" && state.name !== "streaming") return false;
    const flaw = this.#clientFlaw(state.identity, state.last);
    const isConfirmed = flaw !== undefined && flaw === this.#suspicion;
    this.#suspicion = flaw;
    if (isConfirmed) this.#revoke(flaw);
    return flaw !== undefined;
  }

  verifyAgain(isTrusted: (leaf: Certificate) => boolean): void {
    const { name } = this.#state;
    // One that waits for OPEN, the first or the next, was let in by what was trusted then.
    if (name === "handshake" || name === "ended") return;
    using leaf = this.#tunnel.session.peerCertificate();
    if (!isTrusted(leaf)) {
      this.#revoke(
        "its certificate is not trusted any more: its CA has gone, or the deny list names it",
      );
    }
  }

  describe(): ConnectionReport | undefined {
    const state = this.#state;
    if (!("last" in state) || state.last === undefined) return undefined;
    const stream = state.name === "streaming" ? state.stream : undefined;
    return this.#report(NAMES[state.name], state.identity, state.last, stream);
  }

  // ---- from state to state ----

  /** Connects from inside the pod; the client's address is noted before the SYN can be sent. */
  #dial(identity: PeerIdentity, last: Request, from: "loopback" | "pod"): void {
    const { pod, local } = this;
    let dial: ApplicationDial;
    try {
      dial = ApplicationDial.start(pod, { address: local, port: last.port }, last.client, from);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      if (!isShortage(error.errno)) return this.#refuseStream(error.errno, error.message);
      const message = `the agent cannot connect the application: ${error.message}`;
      return this.#refuseStream(error.errno, message, "no_resources");
    }
    this.#state = { name: "dialling", identity, last, dial };
    this.#rearm(dial.from === "loopback" ? LOCAL_MILLISECONDS : DIAL_MILLISECONDS);
    pod.worker.loop.register(dial.socket.descriptor, ALL_EVENTS, this);
  }

  /**
   * What a pod forwards to a namespace inside it (DNAT) is not reached from a loopback address,
   * which no route leads back to. The application there sees the pod's own address, as it does for
   * every connection from the pod.
   */
  #dialFromPod(): void {
    const state = this.#state;
    if (state.name !== "dialling") return;
    this.#closeDial();
    this.#state = { name: "idle", identity: state.identity, last: state.last };
    this.#dial(state.identity, state.last, "pod");
  }

  #startStream(
    identity: PeerIdentity,
    last: Request,
    dial: ApplicationDial,
    events: number,
  ): void {
    const { pod } = this;
    const now = pod.worker.now();
    const isFirst = now - last.began >= LOCAL_MILLISECONDS;
    if (dial.from === "pod" && isFirst && now - dial.began < LOCAL_MILLISECONDS) {
      pod.forwardedPorts.add(last.port, now);
    }
    pod.worker.loop.deadlines.disarm(this);
    pod.counters.streams++;
    pod.counters.streamsOpen++;
    const stream: Stream = new Stream(pod.worker, dial.socket, {
      released: (clean) => this.#released(clean),
      closed: (reason) => this.#streamClosed(identity, last, stream, dial, reason),
    });
    this.#state = { name: "streaming", identity, last, stream };
    pod.worker.loop.replace(dial.socket.descriptor, stream);
    this.#tunnel.send(FRAME.ACCEPT);
    if (this.#carries(stream)) stream.start(this.#tunnel, events);
  }

  #carries(stream: Stream): boolean {
    return this.#state.name === "streaming" && this.#state.stream === stream;
  }

  #streamClosed(
    identity: PeerIdentity,
    last: Request,
    stream: Stream,
    dial: ApplicationDial,
    reason: string | undefined,
  ): void {
    const { worker, counters, tenant } = this.pod;
    counters.streamsOpen--;
    counters.bytesSent += stream.bytesSent;
    counters.bytesReceived += stream.bytesReceived;
    dial.forgetClient();
    worker.access?.finished(
      tenant,
      reason,
      () => this.#report("streaming", identity, last, stream),
    );
  }

  #released(clean: boolean): void {
    const state = this.#state;
    if (state.name !== "streaming") return;
    const { identity, last } = state;
    this.#state = { name: "idle", identity, last };
    if (!clean) return this.#end();
    this.#rearm(IDLE_MILLISECONDS);
    if (this.#isOutdated || this.pod.worker.load.shouldShed) return this.#retire(identity, last);
    if (!this.#tunnel.congested) this.pod.unused(this);
  }

  /** No other stream is to be carried: ends as soon as the last one's bytes are out. */
  #retire(identity: PeerIdentity, last: Request): void {
    if (this.#tunnel.congested) this.#state = { name: "retiring", identity, last };
    else this.#end();
  }

  #refuseStream(errno: number, message: string, code = "application_refused"): void {
    const state = this.#state;
    const { name } = state;
    if (name !== "idle" && name !== "dialling" && name !== "unregistered") return;
    this.pod.refuse(code, `refused a stream: ${message}`, this.#fields());
    this.#closeDial();
    this.#rearm(IDLE_MILLISECONDS);
    this.#state = { name: "idle", identity: state.identity, last: state.last };
    this.pod.unused(this);
    this.#tunnel.sendRefuse(errno);
    // What came behind OPEN was left unread; the loop calls, since this may be inside a read
    // already.
    this.pod.worker.loop.again(this.#tunnel);
  }

  /** Everything was judged as a peer's is. */
  #answerProof(): void {
    this.#rearm(OPEN_MILLISECONDS);
    this.#tunnel.sendRefuse(ECONNREFUSED);
  }

  /** The client makes another tunnel, and proves that it has a certificate that is still good. */
  #expire(): void {
    const message = "refused a stream: a certificate of its tunnel has expired";
    this.pod.refuse("certificate_expired", message, this.#fields());
    this.#end("a certificate has expired");
  }

  #tooSlow(what: string): void {
    this.pod.refuse("deadline", `the client took too long for ${what}`, this.#fields());
    this.#end();
  }

  #revoke(flaw: string): void {
    this.pod.refuse("peer_revoked", `cut a stream: ${flaw}`, this.#fields());
    this.#end(flaw);
  }

  /** Everything ends here that is not clean. */
  #end(reason = "the tunnel ended", stream: "reset" | "cut" = "reset"): void {
    const { pod } = this;
    const state = this.#state;
    if (state.name === "ended") return;
    pod.worker.loop.deadlines.disarm(this);
    pod.worker.unopened.delete(this);
    pod.inUse(this);
    if (pod.closed(this)) {
      pod.counters.tunnelsOpen--;
      if (isOwnProof(pod, this.source)) pod.fromItself--;
    }
    this.#closeDial();
    this.#state = { name: "ended" };
    this.#tunnel.close();
    if (state.name === "streaming") state.stream[stream](reason);
  }

  #closeDial(): void {
    if (this.#state.name !== "dialling") return;
    const { dial } = this.#state;
    this.pod.worker.loop.forget(dial.socket.descriptor);
    dial[Symbol.dispose]();
  }

  // ---- what is known ----

  /**
   * The SPIFFE ID that the registry names for an address. The next stream of a tunnel is usually
   * the same pod's.
   */
  #registered(address: Uint8Array): string | undefined {
    const { peers } = this.pod.worker;
    const last = this.#client;
    const isSame = last !== undefined && !last.isLeaving && last.version === peers.version &&
      sameBytes(last.address, address);
    if (!isSame) {
      this.#client = peers.findLeaving(address, this.pod.worker.now());
    }
    return this.#client?.identity;
  }

  /** Why the client of a stream is nobody any more, if it is. */
  #clientFlaw(identity: PeerIdentity, { client: { address } }: Request): string | undefined {
    const registered = this.#registered(address);
    const client = formatAddress(address);
    if (registered === undefined) return `the registry does not name the client ${client} any more`;
    if (registered !== identity.id) return `${client} is ${registered}'s now`;
    // Its node's agent has a better one by now, if it says that it can serve the pod.
    if (this.#tunnel.current || this.#client?.ready) return undefined;
    return "a certificate of its tunnel has expired, and the client's agent has no other";
  }

  get #isOutdated(): boolean {
    return this.#epoch !== this.pod.epoch;
  }

  get #proves(): boolean {
    const state = this.#state;
    return "identity" in state && isOwnProof(this.pod, this.source, state.identity.id);
  }

  get #destination(): string {
    const port = "last" in this.#state ? this.#state.last?.port ?? 0 : 0;
    return text({ address: this.local, port });
  }

  /** Why the pod's policy keeps the client from this port, if it does. */
  #denial(identity: PeerIdentity, port: number): string | undefined {
    const { policy } = this.pod.settings;
    if (policy === undefined || allowingRule(policy, identity, port) !== undefined) {
      return undefined;
    }
    const reason = `kube-gateway.io/allow (${policyText(policy)}) does not allow ` +
      `${identity.id} on port ${port} of ${this.pod.description.identity}`;
    if (!policy.dryRun) return reason;
    this.pod.wouldRefuse(`would have refused a stream: ${reason}`, this.#fields());
    return undefined;
  }

  #report(
    state: ConnectionReport["state"],
    identity: PeerIdentity,
    open: Request,
    stream: Stream | undefined,
  ): ConnectionReport | undefined {
    const { description, worker } = this.pod;
    const { tls } = this.#tunnel;
    if (tls === undefined) return undefined;
    return {
      direction: "inbound",
      worker: worker.load.own,
      pod: description.name,
      identity: description.identity,
      state,
      client: text(open.client),
      destination: text({ address: this.local, port: open.port }),
      dialled: text(open.dialled),
      milliseconds: worker.now() - open.began,
      bytesSent: stream?.bytesSent ?? 0,
      bytesReceived: stream?.bytesReceived ?? 0,
      peer: formatAddress(open.client.address),
      peerIdentity: identity.id,
      tls,
    };
  }

  #rearm(milliseconds: number): void {
    this.pod.worker.loop.deadlines.arm(this, milliseconds);
  }

  #fields(): Record<string, string | number> {
    const state = this.#state;
    const fields: Record<string, string | number> = { source: text(this.source) };
    if ("identity" in state) fields.identity = state.identity.id;
    if ("last" in state && state.last !== undefined) {
      fields.port = state.last.port;
      fields.client = text(state.last.client);
    }
    return fields;
  }
}

const NAMES = {
  idle: "idle",
  retiring: "idle",
  unregistered: "opening",
  dialling: "opening",
  streaming: "streaming",
} as const;

/** What connect() says where a loopback address cannot be the source. */
const UNROUTABLE = new Set([EINVAL, EHOSTUNREACH, ENETUNREACH]);
