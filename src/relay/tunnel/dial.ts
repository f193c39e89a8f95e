import { errorText } from "../../error_text.ts";
import { TUNNEL_PORT } from "../../constants.ts";
import { IdentityError } from "../../identity/reasons.ts";
import { requireServer } from "../../identity/verify.ts";
import { ECONNREFUSED, ECONNRESET, SystemError } from "../../native/errno.ts";
import { text } from "../../native/socket.ts";
import type { Expiring } from "../loop/deadlines.ts";
import type { KnownPeer } from "../loop/known_peers.ts";
import { StreamlessOwner } from "./idle_tunnel.ts";
import { Tunnel } from "./tunnel.ts";
import type { TunnelPod } from "./tunnel_pod.ts";

/** Connecting and the TLS handshake together. */
const HANDSHAKE_MILLISECONDS = 10_000;

/** Why there is no tunnel: a stable code, and a sentence for people. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  /**
   * The peer's relay does not listen, or went away before it has answered: it may be back in a
   * moment.
   */
  readonly notReady?: boolean;
}

/** Called once, unless the dial is aborted. */
export interface DialListener {
  /** The tunnel, to a peer that has proved to be who it must be. Its owner is to be set at once. */
  done(tunnel: Tunnel): void;
  failed(failure: Failure): void;
}

/** One tunnel in the making: its socket in our pod's namespace, TLS, the server's identity. */
export class Dial extends StreamlessOwner implements Expiring {
  #tunnel: Tunnel | undefined;

  constructor(
    readonly pod: TunnelPod,
    readonly peer: KnownPeer,
    readonly listener: DialListener,
  ) {
    super();
  }

  start(): void {
    const { pod, peer } = this;
    const { worker } = pod;
    const endpoint = { address: peer.address, port: TUNNEL_PORT };
    if (pod.notAfter <= worker.wallClock()) {
      const message = `the pod's own certificate has expired on ${
        new Date(pod.notAfter).toISOString()
      }`;
      return this.listener.failed({ code: "certificate_expired", message });
    }
    try {
      const socket = pod.socketFor(endpoint.address);
      const errno = socket.connect(endpoint);
      if (errno !== 0) {
        socket[Symbol.dispose]();
        throw new SystemError("connect", errno, text(endpoint));
      }
      const session = worker.engine.session(pod.context, "client");
      this.#tunnel = new Tunnel(worker, socket, session, "client", this, pod.turns);
      this.#tunnel.epoch = pod.epoch;
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      const message = `cannot dial ${text(endpoint)}: ${error.message}`;
      return this.listener.failed({ code: "dial", message, notReady: isAbsence(error) });
    }
    pod.counters.tunnelsOpen++;
    worker.loop.deadlines.arm(this, HANDSHAKE_MILLISECONDS);
  }

  secured(tunnel: Tunnel): void {
    const { pod, peer } = this;
    using certificate = tunnel.session.peerCertificate();
    const identity = pod.worker.identityOf(certificate);
    pod.worker.shown(identity, peer.name, peer.identity, tunnel.session);
    requireServer(identity, { address: peer.name, id: peer.identity });
    pod.secured(tunnel, certificate.secondsLeft());
    pod.worker.loop.deadlines.disarm(this);
    this.#tunnel = undefined;
    this.listener.done(tunnel);
  }

  lost(reason: string, error?: unknown): void {
    const code = error instanceof IdentityError ? error.reason : "tunnel_lost";
    const message = `the tunnel to ${this.peer.name} failed: ${reason}`;
    this.#fail({ code, message, notReady: isAbsence(error) });
  }

  expired(): void {
    this.#fail({ code: "deadline", message: `the handshake with ${this.peer.name} took too long` });
  }

  failed(error: unknown): void {
    this.#fail({ code: "internal", message: `internal error: ${errorText(error)}` });
  }

  /** Ends without a word to the listener. */
  abort(): void {
    this.pod.worker.loop.deadlines.disarm(this);
    if (this.#tunnel === undefined) return;
    this.#tunnel.close();
    this.#tunnel = undefined;
    this.pod.counters.tunnelsOpen--;
  }

  #fail(failure: Failure): void {
    this.abort();
    this.listener.failed(failure);
  }
}

/** While an agent is replaced nobody listens, and what the last one had not taken is reset. */
function isAbsence(error: unknown): boolean {
  return error instanceof SystemError &&
    (error.errno === ECONNREFUSED || error.errno === ECONNRESET);
}
