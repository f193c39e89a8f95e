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
import type { RelayPod } from "./pod.ts";
import type { Route, Target } from "./route.ts";

/**
 * How many endpoints of a Service one connection is tried on, not counting those that cannot be
 * served yet.
 */
const MOST_ATTEMPTS = 5;

/** How often a set of backends may be replaced while it is being read. */
const MOST_READS = 4;

/**
 * A connection to a Service. Its endpoint is the one that a sticky client had, else the less busy
 * of two random ones; one that has failed is not tried again. A Service that lost its last enrolled
 * endpoint since connect() is left to kube-proxy, as it is for connections that come after it.
 */
export class ServiceRoute implements Route {
  /** Those that have failed, and those of this round that cannot be served yet. */
  readonly #tried = new Set<string>();
  /** Of the tried ones, by address and port: peers that the next round may try again. */
  readonly #notReady = new Set<string>();
  /** Peers that were once not ready: none of them is ever dialled in clear. */
  readonly #peersOnly = new Set<string>();
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
    if (this.#attempts >= MOST_ATTEMPTS) return undefined;
    for (let read = 0; read < MOST_READS; read++) {
      const target = this.#stickyTarget() ?? this.#lessBusyTarget();
      if (target !== undefined) return this.#use(target);
      if (!this.#readAgain()) break;
    }
    const isGone = this.pod.worker.frontends.get(encodeEndpoint(this.dialled)) === undefined;
    const isUntouched = this.#tried.size + this.#peersOnly.size === 0;
    return isGone && isUntouched && !this.pod.settings.strictEgress
      ? this.#use({ endpoint: this.dialled, peer: undefined })
      : undefined;
  }

  get isAwaited(): boolean {
    return this.#notReady.size > 0 && this.#attempts < MOST_ATTEMPTS;
  }

  notReady(): void {
    if (this.#last === undefined) return;
    this.#attempts--;
    this.#await(text(this.#last));
  }

  again(): void {
    for (const key of this.#notReady) this.#tried.delete(key);
    this.#notReady.clear();
    this.#readAgain();
  }

  accepted(): void {
    if (this.#frontend.affinity === 0 || this.#last === undefined) return;
    const value = encodeAffinity({ backend: this.#last, used: this.pod.worker.wallClock() });
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
    this.#attempts++;
    this.#tried.add(key);
    this.#current = key;
    this.#last = target.endpoint;
    outstanding.set(key, (outstanding.get(key) ?? 0) + 1);
    return target;
  }

  #await(key: string): void {
    this.#tried.add(key);
    this.#notReady.add(key);
    this.#peersOnly.add(key);
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
    if (this.pod.worker.wallClock() - used > affinity * 1000) return undefined;
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
    const key = text(endpoint);
    if (this.#tried.has(key)) return undefined;
    if (this.pod.isOwn(formatAddress(endpoint.address))) return { endpoint, peer: undefined };
    const peer = worker.peers.find(endpoint.address);
    if (peer?.ready === false) {
      this.#await(key);
      return undefined;
    }
    const isRefused = peer === undefined && (settings.strictEgress || this.#peersOnly.has(key));
    return isRefused ? undefined : { endpoint, peer };
  }

  #affinityKey(): Uint8Array<ArrayBuffer> {
    return encodeSocketKey(this.pod.description.cookie, this.dialled);
  }
}
