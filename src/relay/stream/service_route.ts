import { formatAddress } from "../../addresses.ts";
import {
  decodeAffinity,
  decodeEndpoint,
  decodeFrontend,
  encodeAffinity,
  encodeBackendKey,
  encodeEndpoint,
  encodeSocketKey,
  type FrontendValue,
} from "../../kernel/maps.ts";
import { text } from "../../native/socket.ts";
import type { Endpoint } from "../../native/socket_address.ts";
import type { KnownPeer } from "../loop/known_peers.ts";
import type { RelayPod } from "./pod.ts";

/** Where one attempt goes: through a tunnel to a peer, or in clear where there is none. */
export interface Target {
  readonly endpoint: Endpoint;
  readonly peer: KnownPeer | undefined;
}

/** Where a connection may go: one target after the other, until one takes it. */
export interface Route {
  /** Undefined when there is no other to try. */
  next(): Target | undefined;
  /** The last target has taken the stream. */
  accepted(): void;
  /** The stream has ended, or was never one. */
  close(): void;
}

/** A pod that was dialled by its own address. */
export function routeToPeer(endpoint: Endpoint, peer: KnownPeer): Route {
  let target: Target | undefined = { endpoint, peer };
  return {
    next: () => {
      const once = target;
      target = undefined;
      return once;
    },
    accepted: () => {},
    close: () => {},
  };
}

/** How many endpoints of a Service one connection is tried on. */
const MOST_ATTEMPTS = 5;

/** How often a set of backends may be replaced while it is being read. */
const MOST_READS = 4;

/**
 * A connection to a Service. Its endpoint is the one that a sticky client had, else the less busy of two random ones;
 * one that has failed is not tried again. A Service that lost its last enrolled endpoint since connect() is left to
 * kube-proxy, as it is for connections that come after it.
 */
export class ServiceRoute implements Route {
  readonly #tried = new Set<string>();
  #frontend: FrontendValue;
  #attempts = 0;
  /** The last target's key in `worker.outstanding`. */
  #current: string | undefined;
  #last: Endpoint | undefined;

  constructor(readonly pod: RelayPod, readonly dialled: Endpoint, frontend: FrontendValue) {
    this.#frontend = frontend;
  }

  /** The route of a connection to `dialled`, if that is a Service's address and port. */
  static find(pod: RelayPod, dialled: Endpoint): ServiceRoute | undefined {
    const value = pod.worker.frontends.get(encodeEndpoint(dialled));
    return value === undefined ? undefined : new ServiceRoute(pod, dialled, decodeFrontend(value));
  }

  next(): Target | undefined {
    this.close();
    if (this.#attempts++ >= MOST_ATTEMPTS) return undefined;
    for (let read = 0; read < MOST_READS; read++) {
      const target = this.#stickyTarget() ?? this.#lessBusyTarget();
      if (target !== undefined) return this.#use(target);
      if (!this.#readAgain()) break;
    }
    const isGone = this.pod.worker.frontends.get(encodeEndpoint(this.dialled)) === undefined;
    return isGone && this.#tried.size === 0 && !this.pod.settings.strictEgress
      ? this.#use({ endpoint: this.dialled, peer: undefined })
      : undefined;
  }

  accepted(): void {
    if (this.#frontend.affinity === 0 || this.#last === undefined) return;
    const value = encodeAffinity({ backend: this.#last, used: Date.now() });
    this.pod.worker.affinities.set(this.#affinityKey(), value);
  }

  close(): void {
    if (this.#current === undefined) return;
    const { outstanding } = this.pod.worker;
    const count = (outstanding.get(this.#current) ?? 1) - 1;
    if (count === 0) outstanding.delete(this.#current);
    else outstanding.set(this.#current, count);
    this.#current = undefined;
  }

  #use(target: Target): Target {
    const key = text(target.endpoint);
    const { outstanding } = this.pod.worker;
    this.#tried.add(key);
    this.#current = key;
    this.#last = target.endpoint;
    outstanding.set(key, (outstanding.get(key) ?? 0) + 1);
    return target;
  }

  /** Whether the Service has another set of backends by now. */
  #readAgain(): boolean {
    const value = this.pod.worker.frontends.get(encodeEndpoint(this.dialled));
    if (value === undefined) return false;
    const now = decodeFrontend(value);
    const isOther = now.set !== this.#frontend.set;
    this.#frontend = now;
    return isOther;
  }

  #stickyTarget(): Target | undefined {
    const { affinity, set, count } = this.#frontend;
    if (affinity === 0 || this.#tried.size > 0) return undefined;
    const value = this.pod.worker.affinities.get(this.#affinityKey());
    if (value === undefined) return undefined;
    const { backend, used } = decodeAffinity(value);
    if (Date.now() - used > affinity * 1000) return undefined;
    const key = text(backend);
    for (let index = 0; index < count; index++) {
      const target = this.#usable(set, index);
      if (target !== undefined && text(target.endpoint) === key) return target;
    }
    return undefined;
  }

  #lessBusyTarget(): Target | undefined {
    const [one, other] = [this.#randomTarget(), this.#randomTarget()];
    if (one === undefined || other === undefined) return one ?? other;
    return this.#busy(one) <= this.#busy(other) ? one : other;
  }

  #busy({ endpoint }: Target): number {
    return this.pod.worker.outstanding.get(text(endpoint)) ?? 0;
  }

  /** From a random place on, the first one that may be tried. */
  #randomTarget(): Target | undefined {
    const { set, count } = this.#frontend;
    const start = Math.floor(Math.random() * count);
    for (let step = 0; step < count; step++) {
      const target = this.#usable(set, (start + step) % count);
      if (target !== undefined) return target;
    }
    return undefined;
  }

  #usable(set: number, index: number): Target | undefined {
    const { worker, settings } = this.pod;
    const value = worker.backends.get(encodeBackendKey(set, index));
    if (value === undefined) return undefined; // the set was replaced just now
    const endpoint = decodeEndpoint(value);
    if (this.#tried.has(text(endpoint))) return undefined;
    if (this.pod.isOwn(formatAddress(endpoint.address))) return { endpoint, peer: undefined };
    const peer = worker.peers.find(endpoint.address);
    return peer === undefined && settings.strictEgress ? undefined : { endpoint, peer };
  }

  #affinityKey(): Uint8Array<ArrayBuffer> {
    return encodeSocketKey(this.pod.description.cookie, this.dialled);
  }
}
