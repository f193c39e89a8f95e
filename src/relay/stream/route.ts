import type { Endpoint } from "../../native/socket_address.ts";
import type { KnownPeer, KnownPeers } from "../loop/known_peers.ts";

/** Where one attempt goes: through a tunnel to a peer, or in clear where there is none. */
export interface Target {
  readonly endpoint: Endpoint;
  readonly peer: KnownPeer | undefined;
}

/** Where a connection may go: one target after the other, until one takes it. */
export interface Route {
  /** One that can be served now and has not been tried; undefined when there is none. */
  next(): Target | undefined;
  /** Whether another round may find one, since a peer cannot be served yet. */
  readonly isAwaited: boolean;
  /** The last target, a peer, turned out not to be served yet. */
  notReady(): void;
  /** Begins another round: those that could not be served yet may be tried again. */
  again(): void;
  /** The last target has taken the stream. */
  accepted(): void;
  /** The stream has ended, or was never one. */
  close(): void;
}

/** The route to a pod that was dialled by its own address. */
export class PeerRoute implements Route {
  #state: "untried" | "awaited" | "spent" = "untried";
  #peer: KnownPeer | undefined;

  constructor(readonly peers: KnownPeers, readonly endpoint: Endpoint, peer: KnownPeer) {
    this.#peer = peer;
  }

  next(): Target | undefined {
    if (this.#state !== "untried" || this.#peer === undefined) return undefined;
    this.#state = this.#peer.ready ? "spent" : "awaited";
    return this.#peer.ready ? { endpoint: this.endpoint, peer: this.#peer } : undefined;
  }

  get isAwaited(): boolean {
    return this.#state === "awaited";
  }

  notReady(): void {
    this.#state = "awaited";
  }

  /** The pod may be withdrawn by now, or another one may have the address. */
  again(): void {
    this.#state = "untried";
    this.#peer = this.peers.find(this.endpoint.address);
  }

  accepted(): void {}

  close(): void {}
}
