import { errorText } from "../../error_text.ts";
import type { Certificate } from "../../native/certificate.ts";
import { EACCES, EPERM, errnoName, isShortage, SystemError } from "../../native/errno.ts";
import { type Socket, text } from "../../native/socket.ts";
import type { Endpoint } from "../../native/socket_address.ts";
import type { TlsFacts } from "../../native/tls_session.ts";
import type { Expiring } from "../loop/deadlines.ts";
import type { ConnectionReport } from "../messages.ts";
import type { Failure } from "../tunnel/dial.ts";
import { FrameError } from "../tunnel/frame.ts";
import type { TunnelUser } from "../tunnel/pool.ts";
import { ALL_EVENTS, type Tunnel, type TunnelOwner } from "../tunnel/tunnel.ts";
import { PlainStream, type PlainStreamOwner } from "./plain_stream.ts";
import type { Connection, RelayPod } from "./pod.ts";
import type { Route, Target } from "./route.ts";
import { Stream, type StreamOwner } from "./stream.ts";

/** Until there is a tunnel, or a plain connection. */
const TUNNEL_MILLISECONDS = 10_000;

/** The same where another endpoint can be tried: a pod that is gone does not answer at all. */
const ATTEMPT_MILLISECONDS = 3_000;

/**
 * From OPEN to the answer: the other side's own limits for OPEN and for dialling, with a little to
 * spare.
 */
const ACCEPT_MILLISECONDS = 16_000;

/**
 * The same on a tunnel that an earlier stream has left. Its last bytes may still be there: a server
 * that ended first may take its time to read them, and OPEN lies behind them.
 */
const REUSED_ACCEPT_MILLISECONDS = 4_000;

/** How long a connection waits, in all, for a peer that cannot be served yet. */
const PATIENCE_MILLISECONDS = 5_000;

/**
 * Until it is looked for again, one of these by chance, so that those who wait do not all come at
 * once.
 */
const PAUSES_MILLISECONDS = [100, 150, 200, 250] as const;

/** What carries the application's bytes: a stream in a tunnel, or a plain connection. */
interface Carrier {
  readonly bytesSent: number;
  readonly bytesReceived: number;
  /** Ends it; the application sees a reset. */
  reset(reason: string): void;
}

type State =
  /**
   * For a tunnel or for `plain`, to the target; the first target is still to be chosen when there
   * is none.
   */
  | { readonly name: "waiting"; readonly target?: Target; readonly plain?: PlainStream }
  /** No target can be served yet. */
  | { readonly name: "postponed"; readonly target?: Target }
  /**
   * OPEN is sent. A reused tunnel has carried a stream before, and its peer may just have closed
   * it.
   */
  | {
    readonly name: "asked";
    readonly target: Target;
    readonly tunnel: Tunnel;
    readonly reused: boolean;
  }
  /** The carrier has the application's socket; one that is no plain connection needs the tunnel. */
  | {
    readonly name: "streaming";
    readonly target: Target;
    readonly carrier: Carrier;
    readonly tunnel?: Tunnel;
  }
  /** The stream is over: last bytes wait in the tunnel, or for the application to take them. */
  | {
    readonly name: "finishing";
    readonly target?: Target;
    readonly carrier: Carrier;
    readonly tunnel?: Tunnel;
    readonly appClosed: boolean;
    /** Why it did not end by both sides' FIN. */
    readonly reason?: string;
  }
  | { readonly name: "ended"; readonly target?: Target };

/**
 * One connection of the application on its way to a target and through it.
 *
 *     postponed ◄─ none is ready ─┐     ┌─ refused, lost, late: the next target
 *         └─── again ──────► waiting ◄──┴──────┐
 *                               ├── tunnel ─► asked ─ ACCEPT ─► streaming ─ END, END ─► finishing ─► ended
 *                               └── plain connection ──────────────┘
 *
 * From every state: a reset by either application, or no target that is left, ends it.
 */
export class Outbound
  implements Connection, TunnelUser, TunnelOwner, StreamOwner, PlainStreamOwner, Expiring {
  readonly direction = "outbound";
  #state: State = { name: "waiting" };
  readonly #stream: Stream;
  readonly #began: number;
  /** By when a peer that cannot be served yet must be. */
  #patience = Infinity;
  #tls: TlsFacts | undefined;
  /** What was wrong with the peer at the last review. */
  #suspicion: string | undefined;

  constructor(
    readonly pod: RelayPod,
    readonly app: Socket,
    readonly route: Route,
    readonly isService: boolean,
    readonly client: Endpoint,
    readonly dialled: Endpoint,
  ) {
    this.#began = pod.worker.now();
    pod.opened(this);
    pod.counters.streams++;
    pod.counters.streamsOpen++;
    this.#stream = new Stream(pod.worker, app, this);
    pod.worker.loop.register(app.descriptor, ALL_EVENTS, this.#stream);
  }

  /** Tries the next target; when there is none, `failure` is why nothing came of it. */
  attempt(failure: Failure = NO_ENDPOINT): void {
    const target = this.route.next();
    if (target !== undefined) {
      if (this.isService && this.#state.target !== undefined) this.pod.counters.retries++;
      return this.#try(target, this.isService ? ATTEMPT_MILLISECONDS : TUNNEL_MILLISECONDS);
    }
    if (this.route.isAwaited) this.#postpone(failure);
    else this.#giveUp(failure);
  }

  // ---- waiting ----

  tunnelReady(tunnel: Tunnel, reused: boolean): void {
    const { name, target } = this.#state;
    if (name !== "waiting" || target === undefined) throw new Error(`a tunnel while ${name}`);
    this.#state = { name: "asked", target, tunnel, reused };
    this.#tls = tunnel.tls;
    tunnel.owner = this;
    this.#arm(reused ? REUSED_ACCEPT_MILLISECONDS : ACCEPT_MILLISECONDS);
    const { client, dialled } = this;
    tunnel.sendOpen({ port: target.endpoint.port, client, dialled });
  }

  tunnelFailed(failure: Failure): void {
    this.#disarm();
    if (failure.notReady) this.route.notReady();
    this.attempt(failure);
  }

  connected(): void {
    const state = this.#state;
    if (state.name !== "waiting" || state.target === undefined || state.plain === undefined) return;
    this.#disarm();
    this.#state = { name: "streaming", target: state.target, carrier: state.plain };
    this.pod.counters.plainStreams++;
    this.route.accepted();
    state.plain.join(this.app);
  }

  unreachable(errno: number): void {
    this.#disarm();
    const target = this.#state.target;
    this.#state = { name: "waiting", target };
    const where = target === undefined ? "an endpoint" : text(target.endpoint);
    this.attempt({
      code: isShortage(errno) ? "no_resources" : "application_refused",
      message: `${where}, which is not enrolled, cannot be reached: ${errnoName(errno)}`,
    });
  }

  // ---- postponed ----

  peersChanged(): void {
    this.#tryAgain();
  }

  // ---- asked ----

  accept(): void {
    const state = this.#state;
    if (state.name !== "asked") throw new FrameError("unexpected ACCEPT");
    const { target, tunnel } = state;
    this.#disarm();
    this.#state = { name: "streaming", target, tunnel, carrier: this.#stream };
    this.route.accepted();
    // Not before the rest of this read has been taken from the shared buffers: the loop calls at
    // once.
    this.pod.worker.loop.again({
      ready: () => {
        if (this.#tunnel === tunnel) this.#stream.start(tunnel);
      },
      failed: (error) => this.#stream.failed(error),
    });
  }

  refuse(errno: number): void {
    const state = this.#state;
    if (state.name !== "asked") throw new FrameError("unexpected REFUSE");
    this.#disarm();
    this.#park();
    const where = text(state.target.endpoint);
    this.attempt(
      errno === EPERM
        ? {
          code: "not_registered",
          message: `${where} does not know ${this.pod.description.name} by the registry`,
        }
        : errno === EACCES
        ? {
          code: "policy_denied",
          message: `the policy of ${where} (${state.target.peer?.identity}) ` +
            `does not allow ${this.pod.description.identity}`,
        }
        : isShortage(errno)
        ? {
          code: "no_resources",
          message: `the agent of ${where} cannot connect the application: ${errnoName(errno)}`,
        }
        : {
          code: "application_refused",
          message: `the application at ${where} refused the connection: ${errnoName(errno)}`,
        },
    );
  }

  // ---- streaming ----

  get accepting(): boolean {
    return this.#state.name !== "streaming" || this.#stream.accepting;
  }

  data(start: number, length: number): void {
    if (this.#state.name !== "streaming") throw new FrameError(`DATA while ${this.#state.name}`);
    this.#stream.data(start, length);
  }

  end(): void {
    if (this.#state.name !== "streaming") throw new FrameError(`END while ${this.#state.name}`);
    this.#stream.end();
  }

  batchEnd(): void {
    this.#stream.deliver();
  }

  drained(): void {
    if (this.#state.name === "finishing") this.#park();
    else this.#stream.drained();
  }

  released(clean: boolean, reason: string): void {
    const state = this.#state;
    if (state.name === "ended") return;
    if (state.name !== "streaming" && state.name !== "finishing") return this.#end(reason);
    this.#state = { ...state, name: "finishing", appClosed: this.app.closed };
    if (!clean) this.#closeTunnel();
    else if (!state.tunnel?.congested) this.#park();
  }

  closed(reason: string | undefined): void {
    const state = this.#state;
    if (state.name === "ended") return;
    if (state.name !== "streaming" && state.name !== "finishing") {
      return this.#end(reason ?? "the application is gone");
    }
    this.#state = { ...state, name: "finishing", appClosed: true, reason };
    this.#leaveIfDone();
  }

  // ---- in any state ----

  open(): void {
    throw new FrameError("unexpected OPEN");
  }

  secured(): void {
    throw new FrameError("unexpected handshake");
  }

  reset(): void {
    // Before ACCEPT it is about the stream before: an application may still reset what it has
    // ended.
    if (this.#requestAnew(false)) return;
    const { name } = this.#state;
    const reason = "reset by the destination's application";
    if (name === "streaming") this.#end(reason, () => this.#stream.cut(reason));
    else this.#end(reason);
  }

  lost(reason: string): void {
    const failure = { code: "tunnel_lost", message: `the tunnel failed: ${reason}` };
    if (this.#state.name !== "asked") return this.#giveUp(failure);
    if (this.#requestAnew(true)) return;
    this.#stop();
    this.attempt(failure);
  }

  expired(): void {
    if (this.#state.name === "postponed") return this.#tryAgain();
    if (this.#requestAnew(true)) return;
    this.#stop();
    const where = text(this.#state.target?.endpoint ?? this.dialled);
    this.attempt({ code: "deadline", message: `${where} took too long to answer` });
  }

  failed(error: unknown): void {
    this.#giveUp({ code: "internal", message: `internal error: ${errorText(error)}` });
  }

  abort(): void {
    this.#end("the pod or its agent is going");
  }

  enforce(): void {}

  review(): boolean {
    const flaw = this.#peerFlaw();
    const isConfirmed = flaw !== undefined && flaw === this.#suspicion;
    this.#suspicion = flaw;
    if (isConfirmed) this.#revoke(flaw);
    return flaw !== undefined;
  }

  verifyAgain(isTrusted: (leaf: Certificate) => boolean): void {
    const tunnel = this.#tunnel;
    if (tunnel === undefined) return;
    using leaf = tunnel.session.peerCertificate();
    if (!isTrusted(leaf)) {
      this.#revoke(
        "its certificate is not trusted any more: its CA has gone, or the deny list names it",
      );
    }
  }

  describe(): ConnectionReport {
    const state = this.#state;
    const { bytesSent, bytesReceived } = "carrier" in state ? state.carrier : this.#stream;
    const { description, worker } = this.pod;
    const peer = state.target?.peer;
    return {
      direction: "outbound",
      worker: worker.load.own,
      pod: description.name,
      identity: description.identity,
      state: "carrier" in state ? "streaming" : "opening",
      client: text(this.client),
      destination: text(state.target?.endpoint ?? this.dialled),
      dialled: text(this.dialled),
      milliseconds: worker.now() - this.#began,
      bytesSent,
      bytesReceived,
      ...(peer === undefined ? {} : { peer: peer.name, peerIdentity: peer.identity }),
      ...(this.#tls === undefined ? {} : { tls: this.#tls }),
    };
  }

  // ---- from state to state ----

  #try(target: Target, milliseconds: number): void {
    this.#state = { name: "waiting", target };
    if (target.peer === undefined) this.#dialPlain(target);
    else this.pod.pool.request(target.peer, this);
    if (this.#is("waiting")) this.#arm(milliseconds);
  }

  #dialPlain(target: Target): void {
    let errno: number;
    try {
      const socket = this.pod.socketFor(target.endpoint.address);
      errno = socket.connect(target.endpoint);
      if (errno === 0) {
        const plain = new PlainStream(this.pod.worker, socket, this);
        this.#state = { name: "waiting", target, plain };
        return;
      }
      socket[Symbol.dispose]();
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      errno = error.errno;
    }
    this.unreachable(errno);
  }

  /** Keeps the application waiting for a peer that cannot be served yet. */
  #postpone(failure: Failure): void {
    const { worker } = this.pod;
    const { target } = this.#state;
    const now = worker.now();
    this.#patience = Math.min(this.#patience, now + PATIENCE_MILLISECONDS);
    if (now >= this.#patience) {
      const why = failure.notReady ? `: ${failure.message}` : "";
      const message = `${text(this.dialled)} was not ready within ` +
        `${PATIENCE_MILLISECONDS / 1000} s${why}`;
      return this.#giveUp({ code: "peer_not_ready", message });
    }
    this.#state = { name: "postponed", target };
    worker.postponed.add(this);
    this.#arm(PAUSES_MILLISECONDS[Math.floor(Math.random() * PAUSES_MILLISECONDS.length)] ?? 100);
  }

  #tryAgain(): void {
    const { target } = this.#state;
    this.#stop();
    this.#state = { name: "waiting", target };
    this.route.again();
    this.attempt(WITHDRAWN);
  }

  /**
   * Whether a tunnel that an earlier stream has left was of no use to this one, which gets another:
   * `fresh` when that says something about the other idle ones too.
   */
  #requestAnew(fresh: boolean): boolean {
    const state = this.#state;
    if (state.name !== "asked" || !state.reused || state.target.peer === undefined) return false;
    this.#stop();
    if (fresh) this.pod.pool.closeIdleTo(state.target.peer);
    this.#try(state.target, TUNNEL_MILLISECONDS);
    return true;
  }

  #giveUp({ code, message }: Failure): void {
    const peer = this.#state.target?.peer;
    this.pod.refuse(code, message, {
      destination: text(this.dialled),
      ...(peer === undefined ? {} : { peer: peer.name, peerIdentity: peer.identity }),
      client: text(this.client),
    });
    this.#end(message);
  }

  #revoke(flaw: string): void {
    this.#giveUp({ code: "peer_revoked", message: `cut a stream: ${flaw}` });
  }

  /** Everything ends here that is not clean: the application sees a reset, by `reset`. */
  #end(reason: string, reset?: () => void): void {
    if (this.#state.name === "ended") return;
    if (this.#state.name === "finishing") this.#state = { ...this.#state, reason };
    this.#stop();
    if (this.#is("ended")) return; // the application had gone before
    const state = this.#state;
    const carrier = "carrier" in state ? state.carrier : this.#stream;
    const { target } = state;
    this.#state = { name: "finishing", target, carrier, appClosed: this.app.closed, reason };
    if (reset === undefined) carrier.reset(reason);
    else reset();
    this.#leaveIfDone();
  }

  /** Nothing comes of the current attempt any more; a stream loses its tunnel. */
  #stop(): void {
    this.#disarm();
    const state = this.#state;
    if (state.name === "waiting") {
      if (state.target?.peer !== undefined) this.pod.pool.withdraw(state.target.peer, this);
      state.plain?.abandon();
      this.#state = { name: "waiting", target: state.target };
    } else if (state.name === "postponed") this.pod.worker.postponed.delete(this);
    else this.#closeTunnel();
  }

  /** Leaves the tunnel, on which nothing is under way, to the next stream. */
  #park(): void {
    const tunnel = this.#takeTunnel();
    const peer = this.#state.target?.peer;
    if (tunnel !== undefined && peer !== undefined) this.pod.pool.park(peer, tunnel);
    this.#leaveIfDone();
  }

  #closeTunnel(): void {
    const tunnel = this.#takeTunnel();
    if (tunnel !== undefined) {
      this.pod.counters.tunnelsOpen--;
      tunnel.close();
    }
    this.#leaveIfDone();
  }

  /** The tunnel, which is the state's no longer: an attempt waits for another one. */
  #takeTunnel(): Tunnel | undefined {
    const state = this.#state;
    if (state.name === "asked") this.#state = { name: "waiting", target: state.target };
    else if ("carrier" in state) this.#state = { ...state, tunnel: undefined };
    return "tunnel" in state ? state.tunnel : undefined;
  }

  /** Why the peer of a stream is nobody any more, if it is. */
  #peerFlaw(): string | undefined {
    const state = this.#state;
    const peer = state.target?.peer;
    if (state.name !== "streaming" || peer === undefined) return undefined;
    const { peers } = this.pod.worker;
    if (!peers.isCurrent(peer)) {
      return `the registry does not name ${peer.name} as that pod any more`;
    }
    // Its node's agent has a better one by now, if it says that it can serve the pod.
    if (state.tunnel?.current !== false || peers.find(peer.address)?.ready) return undefined;
    return "a certificate of its tunnel has expired, and the peer's agent has no other";
  }

  get #tunnel(): Tunnel | undefined {
    return "tunnel" in this.#state ? this.#state.tunnel : undefined;
  }

  #leaveIfDone(): void {
    const state = this.#state;
    if (state.name !== "finishing" || !state.appClosed || state.tunnel !== undefined) return;
    const { pod } = this;
    const { bytesSent, bytesReceived } = state.carrier;
    this.route.close();
    pod.counters.streamsOpen--;
    pod.counters.bytesSent += bytesSent;
    pod.counters.bytesReceived += bytesReceived;
    pod.closed(this);
    pod.worker.access?.finished(pod.tenant, state.reason, () => this.describe());
    this.#state = { name: "ended", target: state.target };
  }

  #is(name: State["name"]): boolean {
    return this.#state.name === name;
  }

  #arm(milliseconds: number): void {
    this.pod.worker.loop.deadlines.arm(this, milliseconds);
  }

  #disarm(): void {
    this.pod.worker.loop.deadlines.disarm(this);
  }
}

const NO_ENDPOINT: Failure = {
  code: "no_endpoint",
  message: "the Service has no endpoint that this pod may connect to",
};

const WITHDRAWN: Failure = {
  code: "peer_withdrawn",
  message: "the peer was withdrawn while the connection waited for it",
};
