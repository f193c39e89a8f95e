/**
 * The outbound side of a pod, in the order a connection takes:
 *
 *   accept      the redirected connect() arrives on the pod's loopback
 *   flow        the kernel's note says where the application was going
 *   route       to that pod, or to one endpoint after the other of that Service until one takes it
 *   tunnel      one that an earlier stream has left, or a new one (pool.ts, dial.ts)
 *   OPEN        the stream is asked for, and accepted or refused
 *   stream      bytes go both ways
 */
import { decodeEndpoint, encodeSocketKey } from "../../kernel/maps.ts";
import { EACCES, errnoName, SystemError } from "../../native/errno.ts";
import { type Socket, text } from "../../native/socket.ts";
import { type Endpoint, isLoopback } from "../../native/socket_address.ts";
import type { TlsFacts } from "../../native/tls_session.ts";
import type { Expiring } from "../loop/deadlines.ts";
import type { Failure } from "../tunnel/dial.ts";
import { FrameError } from "../tunnel/frame.ts";
import type { ConnectionReport } from "../messages.ts";
import { PlainStream, type PlainStreamOwner } from "./plain_stream.ts";
import type { Connection, RelayPod } from "./pod.ts";
import type { TunnelUser } from "../tunnel/pool.ts";
import { type Route, routeToPeer, ServiceRoute, type Target } from "./service_route.ts";
import { Stream, type StreamOwner } from "./stream.ts";
import { ALL_EVENTS, type Tunnel, type TunnelOwner } from "../tunnel/tunnel.ts";

/** Until there is a tunnel, or a plain connection. */
const TUNNEL_MILLISECONDS = 10_000;

/** The same where another endpoint can be tried: a pod that is gone does not answer at all. */
const ATTEMPT_MILLISECONDS = 3_000;

/** From OPEN to the answer: the other side's own limits for OPEN and for dialling, with a little to spare. */
const ACCEPT_MILLISECONDS = 16_000;

/**
 * The same on a tunnel that an earlier stream has left. Its last bytes may still be there: a server that ended
 * first may take its time to read them, and OPEN lies behind them.
 */
const REUSED_ACCEPT_MILLISECONDS = 4_000;

/** Takes a connection that the kernel redirected to the pod's outbound listener. */
export function acceptOutbound(pod: RelayPod, app: Socket, source: Endpoint): void {
  const { worker } = pod;
  const noted = worker.flows.take(encodeSocketKey(pod.description.cookie, source));
  if (noted === undefined) {
    app.reset();
    const message = "closed a connection to the outbound listener that connect() did not redirect";
    return pod.refuse("no_flow", message, { source: text(source) });
  }
  const dialled = decodeEndpoint(noted);
  if (pod.isFull) {
    app.reset();
    return pod.refuse(
      "too_many_connections",
      "refused a connection: too many are open (--max-connections)",
      {
        destination: text(dialled),
      },
    );
  }
  const peer = worker.peers.find(dialled.address);
  const route = peer === undefined ? ServiceRoute.find(pod, dialled) : routeToPeer(dialled, peer);
  const own = pod.ownAddress(dialled.address);
  if (route === undefined || own === undefined) {
    app.reset();
    return pod.refuse("unknown_peer", "refused a connection to a pod that is no peer any more", {
      destination: text(dialled),
    });
  }
  // An application that did not bind() has loopback for its address, as that is where it was sent.
  const client = isLoopback(source.address) ? { address: own, port: source.port } : source;
  new Outbound(pod, app, route, peer === undefined, client, dialled).attempt();
}

/** One connection of the application and what it is carried by: a tunnel, or a plain connection. */
class Outbound
  implements Connection, TunnelUser, TunnelOwner, StreamOwner, PlainStreamOwner, Expiring {
  readonly #stream: Stream;
  readonly #began = performance.now();
  /** The last one that was tried. */
  #target: Target | undefined;
  /** For a tunnel or a plain connection to {@link #target}. */
  #waiting = false;
  #tunnel: Tunnel | undefined;
  #plain: PlainStream | undefined;
  /** The tunnel has carried a stream before: the peer may just have closed it, which is worth a new one. */
  #reused = false;
  #streaming = false;
  /** Both sides have ended, but the last bytes wait in the tunnel. */
  #finishing = false;
  /** The application's socket is closed while they do. */
  #appClosed = false;
  #tls: TlsFacts | undefined;

  constructor(
    readonly pod: RelayPod,
    readonly app: Socket,
    readonly route: Route,
    readonly isService: boolean,
    readonly client: Endpoint,
    readonly dialled: Endpoint,
  ) {
    pod.opened(this);
    pod.counters.streams++;
    pod.counters.streamsOpen++;
    this.#stream = new Stream(pod.worker, app, this);
    pod.worker.loop.register(app.descriptor, ALL_EVENTS, this.#stream);
  }

  /** Tries the next target; when there is none, `failure` is why nothing came of it. */
  attempt(failure: Failure = NO_ENDPOINT): void {
    const target = this.route.next();
    if (target === undefined) return this.#giveUp(failure);
    if (this.#target !== undefined) this.pod.counters.retries++;
    this.#target = target;
    this.#waiting = true;
    if (target.peer === undefined) this.#dialPlain(target.endpoint);
    else this.pod.pool.request(target.peer, this);
    if (this.#waiting) this.#arm(this.isService ? ATTEMPT_MILLISECONDS : TUNNEL_MILLISECONDS);
  }

  tunnelReady(tunnel: Tunnel, reused: boolean): void {
    const target = this.#target;
    if (target === undefined) throw new Error("a tunnel for a stream that has no target");
    this.#waiting = false;
    this.#tunnel = tunnel;
    this.#reused = reused;
    this.#tls = tunnel.tls;
    tunnel.owner = this;
    this.#arm(reused ? REUSED_ACCEPT_MILLISECONDS : ACCEPT_MILLISECONDS);
    const { client, dialled } = this;
    tunnel.sendOpen({ port: target.endpoint.port, client, dialled });
  }

  tunnelFailed(failure: Failure): void {
    this.#waiting = false;
    this.#disarm();
    this.attempt(failure);
  }

  accept(): void {
    if (this.#tunnel === undefined || this.#streaming || this.#finishing) {
      throw new FrameError("unexpected ACCEPT");
    }
    this.#disarm();
    this.#streaming = true;
    this.route.accepted();
    // Not before the rest of this read has been taken from the shared buffers: the loop calls at once.
    this.pod.worker.loop.again({
      ready: () => {
        if (this.#tunnel !== undefined) this.#stream.start(this.#tunnel);
      },
      failed: (error) => this.#stream.failed(error),
    });
  }

  refuse(errno: number): void {
    if (this.#streaming || this.#finishing) throw new FrameError("unexpected REFUSE");
    this.#disarm();
    this.#park();
    this.attempt(
      errno === EACCES
        ? { code: "policy_denied", message: "the destination's policy does not allow this pod" }
        : {
          code: "application_refused",
          message: `the destination's application refused the connection: ${errnoName(errno)}`,
        },
    );
  }

  open(): void {
    throw new FrameError("unexpected OPEN");
  }

  secured(): void {
    throw new FrameError("unexpected handshake");
  }

  get accepting(): boolean {
    return !this.#streaming || this.#stream.accepting;
  }

  data(start: number, length: number): void {
    if (!this.#streaming) throw new FrameError("DATA before ACCEPT");
    this.#stream.data(start, length);
  }

  end(): void {
    if (!this.#streaming) throw new FrameError("END before ACCEPT");
    this.#stream.end();
  }

  reset(): void {
    // Before ACCEPT it is about the stream before: an application may still reset what it has ended.
    if (this.#requestAnew(false)) return;
    this.#end("reset by the destination's application");
  }

  batchEnd(): void {
    this.#stream.deliver();
  }

  drained(): void {
    if (this.#finishing) this.#park();
    else this.#stream.drained();
  }

  lost(reason: string): void {
    const failure = { code: "tunnel_lost", message: `the tunnel failed: ${reason}` };
    if (this.#streaming || this.#finishing) return this.#giveUp(failure);
    if (this.#requestAnew(true)) return;
    this.#disarm();
    this.#closeTunnel();
    this.attempt(failure);
  }

  expired(): void {
    if (this.#requestAnew(true)) return;
    this.#stopTrying();
    this.attempt({ code: "deadline", message: "the destination took too long to answer" });
  }

  failed(error: unknown): void {
    this.#giveUp({ code: "internal", message: `internal error: ${error}` });
  }

  abandoned(reason: string): void {
    this.#end(reason);
  }

  released(clean: boolean): void {
    this.#streaming = false;
    if (!clean) this.#closeTunnel();
    else if (this.#tunnel?.congested) this.#finishing = true;
    else this.#park();
  }

  connected(): void {
    this.#waiting = false;
    this.#disarm();
    this.#streaming = true;
    this.pod.counters.plainStreams++;
    this.route.accepted();
    this.#plain?.join(this.app);
  }

  unreachable(errno: number): void {
    this.#waiting = false;
    this.#plain = undefined;
    this.#disarm();
    this.attempt({
      code: "application_refused",
      message: `an endpoint that is not enrolled cannot be reached: ${errnoName(errno)}`,
    });
  }

  closed(reason: string | undefined): void {
    if (reason === undefined && this.#tunnel?.congested) this.#appClosed = true;
    else this.#leave(reason);
  }

  /** Nothing of the application's connection is left. */
  #leave(reason: string | undefined): void {
    const { pod } = this;
    const { bytesSent, bytesReceived } = this.#plain ?? this.#stream;
    this.route.close();
    pod.counters.streamsOpen--;
    pod.counters.bytesSent += bytesSent;
    pod.counters.bytesReceived += bytesReceived;
    pod.closed(this);
    pod.worker.access?.finished(reason, () => ({
      ...this.describe(),
      milliseconds: performance.now() - this.#began,
    }));
  }

  abort(): void {
    this.#end("the pod or its agent is going");
  }

  enforce(): void {}

  describe(): ConnectionReport {
    const { bytesSent, bytesReceived } = this.#plain ?? this.#stream;
    const { description } = this.pod;
    const peer = this.#target?.peer;
    return {
      direction: "outbound",
      worker: this.pod.worker.load.own,
      pod: description.name,
      identity: description.identity,
      state: this.#streaming ? "streaming" : "opening",
      client: text(this.client),
      destination: text(this.#target?.endpoint ?? this.dialled),
      dialled: text(this.dialled),
      milliseconds: performance.now() - this.#began,
      bytesSent,
      bytesReceived,
      ...(peer === undefined ? {} : { peer: peer.name, peerIdentity: peer.identity }),
      ...(this.#tls === undefined ? {} : { tls: this.#tls }),
    };
  }

  #dialPlain(endpoint: Endpoint): void {
    let errno: number;
    try {
      const socket = this.pod.socketFor(endpoint.address);
      errno = socket.connect(endpoint);
      if (errno === 0) {
        this.#plain = new PlainStream(this.pod.worker, socket, this);
        return;
      }
      socket[Symbol.dispose]();
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      errno = error.errno;
    }
    this.unreachable(errno);
  }

  /** Leaves the tunnel, on which nothing is under way, to the next stream. */
  #park(): void {
    const tunnel = this.#tunnel;
    const peer = this.#target?.peer;
    if (tunnel === undefined || peer === undefined) return;
    this.#tunnel = undefined;
    this.pod.pool.park(peer, tunnel);
    this.#tunnelGone();
  }

  #giveUp({ code, message }: Failure): void {
    const peer = this.#target?.peer?.name;
    this.pod.refuse(code, message, {
      destination: text(this.dialled),
      ...(peer === undefined ? {} : { peer }), // the main thread knows the pod's name
      client: text(this.client),
    });
    this.#end(message);
  }

  /** Everything ends here that is not clean: the application sees a reset. */
  #end(reason: string): void {
    this.#stopTrying();
    if (this.#streaming) this.#plain?.reset(reason);
    this.#stream.reset(reason);
  }

  /** Nothing comes of the current attempt any more. */
  #stopTrying(): void {
    this.#disarm();
    const peer = this.#target?.peer;
    if (this.#waiting && peer !== undefined) this.pod.pool.withdraw(peer, this);
    this.#waiting = false;
    if (!this.#streaming) {
      this.#plain?.abandon();
      this.#plain = undefined;
    }
    this.#closeTunnel();
  }

  #closeTunnel(): void {
    if (this.#tunnel === undefined) return;
    this.pod.counters.tunnelsOpen--;
    this.#tunnel.close();
    this.#tunnel = undefined;
    this.#tunnelGone();
  }

  #tunnelGone(): void {
    this.#finishing = false;
    if (!this.#appClosed) return;
    this.#appClosed = false;
    this.#leave(undefined);
  }

  /**
   * Whether a tunnel that an earlier stream has left was of no use to this one, which gets another: `fresh` when
   * that says something about the other idle ones too.
   */
  #requestAnew(fresh: boolean): boolean {
    const peer = this.#target?.peer;
    const isStale = this.#reused && this.#tunnel !== undefined && !this.#streaming &&
      !this.#finishing;
    if (!isStale || peer === undefined) return false;
    this.#disarm();
    this.#closeTunnel();
    this.#reused = false;
    if (fresh) this.pod.pool.closeIdleTo(peer);
    this.#waiting = true;
    this.pod.pool.request(peer, this);
    if (this.#waiting) this.#arm(TUNNEL_MILLISECONDS);
    return true;
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
