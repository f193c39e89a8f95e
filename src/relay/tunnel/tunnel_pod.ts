import type { Socket } from "../../native/socket.ts";
import type { TlsContext } from "../../native/tls_context.ts";
import type { TurnShare } from "../loop/turn_share.ts";
import type { WorkerContext } from "../loop/worker_context.ts";
import type { Tunnel } from "./tunnel.ts";

/** What outbound tunnels need of the pod that they are made for. */
export interface TunnelPod {
  readonly worker: WorkerContext;
  /** What the pod shows and trusts now. */
  readonly context: TlsContext;
  /** When the pod's own certificate expires, in milliseconds since 1970. */
  readonly notAfter: number;
  /**
   * Another number since the pod shows or trusts something else: earlier tunnels carry no further
   * stream.
   */
  readonly epoch: number;
  readonly counters: { tunnelsOpen: number };
  /** Of the worker's time. */
  readonly turns: TurnShare;
  /** A socket in the pod's namespace. */
  socketFor(address: Uint8Array): Socket;
  /** Counts a handshake, and notes on the tunnel until when both certificates are good. */
  secured(tunnel: Tunnel, peerSecondsLeft: number): void;
}
