/**
 * The outbound side of a pod, in the order a connection takes:
 *
 *   accept      the redirected connect() arrives on the pod's loopback
 *   flow        the kernel's note says where the application was going
 *   tunnel      one that an earlier stream has left, or a new one: its socket in our pod's namespace, TLS, the
 *               server's identity
 *   OPEN        the stream is asked for, and accepted or refused
 *   stream      bytes go both ways
 */
import { TUNNEL_PORT } from "../constants.ts";
import { IdentityError } from "../identity/reasons.ts";
import { identityOfLeaf, requireServer } from "../identity/verify.ts";
import { decodeEndpoint, encodeSocketKey } from "../kernel/maps.ts";
import { errnoName, SystemError } from "../native/errno.ts";
import type { Socket } from "../native/socket.ts";
import { text } from "../native/socket.ts";
import { type Endpoint, isLoopback } from "../native/socket_address.ts";
import type { Expiring } from "./deadlines.ts";
import { FrameError, type Open } from "./frame.ts";
import type { KnownPeer } from "./known_peers.ts";
import type { Connection, RelayPod } from "./pod.ts";
import { Stream, type StreamOwner } from "./stream.ts";
import { ALL_EVENTS, Tunnel, type TunnelOwner } from "./tunnel.ts";

/** Connecting and the TLS handshake together. */
const HANDSHAKE_MILLISECONDS = 10_000;

/** From OPEN to the answer: the other side's own limits for OPEN and for dialling, with a little to spare. */
const ACCEPT_MILLISECONDS = 16_000;

/** Takes a connection that the kernel redirected to the pod's outbound listener. */
export function acceptOutbound(pod: RelayPod, app: Socket, source: Endpoint): void {
  const { bench } = pod;
  const noted = bench.flows.take(encodeSocketKey(pod.description.cookie, source));
  if (noted === undefined) {
    app.reset();
    return pod.refuse(
      "no_flow",
      "closed a connection to the outbound listener that connect() did not redirect",
      {
        source: text(source),
      },
    );
  }
  const dialled = decodeEndpoint(noted);
  const peer = bench.peers.find(dialled.address);
  const own = pod.ownAddress(dialled.address);
  if (peer === undefined || own === undefined) {
    app.reset();
    return pod.refuse("unknown_peer", "refused a connection to a pod that is no peer any more", {
      destination: text(dialled),
    });
  }
  // An application that did not bind() has loopback for its address, as that is where it was sent.
  const client = isLoopback(source.address) ? { address: own, port: source.port } : source;
  new Outbound(pod, app, peer, { port: dialled.port, client, dialled });
}

/** One stream of the outbound side and the tunnel it uses. */
class Outbound implements Connection, TunnelOwner, StreamOwner, Expiring {
  readonly #stream: Stream;
  #tunnel: Tunnel | undefined;
  /** The tunnel has carried a stream before: the peer may just have closed it, which is worth a new one. */
  #reused = false;
  /**
   *     asking ─ ACCEPT ─► streaming ─ END, END ─► finishing ─ all sent ─► the tunnel is parked
   */
  #state: "asking" | "streaming" | "finishing" = "asking";
  #appClosed = false;
  #over = false;

  constructor(
    readonly pod: RelayPod,
    app: Socket,
    readonly peer: KnownPeer,
    readonly wanted: Open,
  ) {
    pod.connections.add(this);
    pod.counters.streams++;
    pod.counters.streamsOpen++;
    this.#stream = new Stream(pod.bench, app, this);
    pod.bench.loop.register(app.descriptor, ALL_EVENTS, this.#stream);
    const idle = pod.pool.take(peer);
    if (idle === undefined) this.#dial();
    else this.#reuse(idle);
  }

  get accepting(): boolean {
    return this.#state !== "streaming" || this.#stream.accepting;
  }

  secured(tunnel: Tunnel): void {
    using certificate = tunnel.session.peerCertificate();
    const identity = identityOfLeaf(certificate.leafFacts(), this.pod.bench.trustDomain);
    requireServer(identity, { address: this.peer.name, id: this.peer.identity });
    this.pod.counters.handshakes++;
    this.pod.bench.loop.deadlines.disarm(this);
    this.#ask(tunnel);
  }

  accept(): void {
    if (this.#tunnel === undefined || this.#state !== "asking") {
      throw new FrameError("unexpected ACCEPT");
    }
    this.pod.bench.loop.deadlines.disarm(this);
    this.#state = "streaming";
    // Not before the rest of this read has been taken from the shared buffers: the loop calls at once.
    this.pod.bench.loop.again({
      ready: () => {
        if (this.#tunnel !== undefined) this.#stream.start(this.#tunnel);
      },
      failed: (error) => this.#stream.failed(error),
    });
  }

  refuse(errno: number): void {
    if (this.#state !== "asking") throw new FrameError("unexpected REFUSE");
    this.pod.refuse("application_refused", "the destination's application refused the connection", {
      ...this.#fields(),
      errno: errnoName(errno),
    });
    this.#park();
    this.#end();
  }

  open(): void {
    throw new FrameError("unexpected OPEN");
  }

  data(start: number, length: number): void {
    if (this.#state !== "streaming") throw new FrameError(`DATA while ${this.#state}`);
    this.#stream.data(start, length);
  }

  end(): void {
    if (this.#state !== "streaming") throw new FrameError(`END while ${this.#state}`);
    this.#stream.end();
  }

  reset(): void {
    // Before ACCEPT it is about the stream before: an application may still reset what it has ended.
    if (!this.#dialAnew()) this.#end();
  }

  batchEnd(): void {
    this.#stream.deliver();
  }

  drained(): void {
    if (this.#state === "finishing") this.#park();
    else this.#stream.drained();
  }

  lost(reason: string, error?: unknown): void {
    if (this.#dialAnew()) return;
    const code = error instanceof IdentityError ? error.reason : "tunnel_lost";
    this.pod.refuse(code, `the tunnel failed: ${reason}`, this.#fields());
    this.#end();
  }

  expired(): void {
    this.pod.refuse("deadline", "the destination took too long to answer", this.#fields());
    this.#end();
  }

  abandoned(): void {
    this.#end();
  }

  released(clean: boolean): void {
    this.#state = "finishing";
    if (!clean) this.#closeTunnel();
    else if (!this.#tunnel?.congested) this.#park();
  }

  closed(): void {
    const { counters } = this.pod;
    counters.bytesSent += this.#stream.bytesSent;
    counters.bytesReceived += this.#stream.bytesReceived;
    this.#appClosed = true;
    this.#leaveIfOver();
  }

  abort(): void {
    this.#end();
  }

  #dial(): void {
    const { pod, peer } = this;
    const { bench } = pod;
    let socket: Socket;
    try {
      socket = connectTo(pod, { address: this.wanted.dialled.address, port: TUNNEL_PORT });
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      pod.refuse("dial", `cannot dial ${peer.name}: ${error.message}`, this.#fields());
      return this.#end();
    }
    bench.loop.deadlines.arm(this, HANDSHAKE_MILLISECONDS);
    pod.counters.tunnelsOpen++;
    this.#tunnel = new Tunnel(
      bench,
      socket,
      bench.engine.session(pod.context, "client"),
      "client",
      this,
    );
  }

  #reuse(tunnel: Tunnel): void {
    this.#tunnel = tunnel;
    this.#reused = true;
    tunnel.owner = this;
    this.#ask(tunnel);
  }

  /** Whether an earlier stream's tunnel was of no use to this one, which now gets one of its own. */
  #dialAnew(): boolean {
    if (!this.#reused || this.#state !== "asking") return false;
    this.#closeTunnel();
    this.#reused = false;
    this.#dial();
    return true;
  }

  #ask(tunnel: Tunnel): void {
    this.pod.bench.loop.deadlines.arm(this, ACCEPT_MILLISECONDS);
    tunnel.sendOpen(this.wanted);
  }

  /** Leaves the tunnel, on which nothing is under way, to the next stream. */
  #park(): void {
    const tunnel = this.#tunnel;
    if (tunnel === undefined) return;
    this.#tunnel = undefined;
    this.pod.pool.park(this.peer, tunnel);
    this.#leaveIfOver();
  }

  /** Everything ends here that is not clean: the application sees a reset. */
  #end(): void {
    this.pod.bench.loop.deadlines.disarm(this);
    this.#closeTunnel();
    this.#stream.reset();
  }

  #closeTunnel(): void {
    if (this.#tunnel === undefined) return;
    this.pod.counters.tunnelsOpen--;
    this.#tunnel.close();
    this.#tunnel = undefined;
    this.#leaveIfOver();
  }

  /** The stream is open as long as the application's socket, or bytes of it wait to be sent. */
  #leaveIfOver(): void {
    if (this.#over || !this.#appClosed || this.#tunnel !== undefined) return;
    this.#over = true;
    this.pod.counters.streamsOpen--;
    this.pod.connections.delete(this);
  }

  #fields(): Record<string, string | number> {
    return {
      destination: text(this.wanted.dialled),
      peer: this.peer.name, // the main thread knows the pod's name
      client: text(this.wanted.client),
    };
  }
}

/** A socket of the pod's that is connecting to `endpoint`. Throws a SystemError. */
function connectTo(pod: RelayPod, endpoint: Endpoint): Socket {
  const socket = pod.socketFor(endpoint.address);
  const errno = socket.connect(endpoint);
  if (errno === 0) return socket;
  socket[Symbol.dispose]();
  throw new SystemError("connect", errno, text(endpoint));
}
