import { Dial, type Failure } from "./dial.ts";
import { IdleTunnel } from "./idle_tunnel.ts";
import type { KnownPeer } from "../loop/known_peers.ts";
import type { Tunnel } from "./tunnel.ts";
import type { TunnelPod } from "./tunnel_pod.ts";

/** However busy a tunnel is, both sides prove who they are again after this. */
const MAX_AGE_MILLISECONDS = 600_000;

/** Per destination: what a burst leaves behind. */
const MAX_IDLE = 64;

/** Per destination: more handshakes at once would only wait for each other. */
const MAX_DIALS = 64;

/** Who needs a tunnel. */
export interface TunnelUser {
  /** @param reused it has carried a stream before: the peer may just have closed it. */
  tunnelReady(tunnel: Tunnel, reused: boolean): void;
  tunnelFailed(failure: Failure): void;
}

/**
 * One pod's outbound tunnels that no stream uses, by destination pod and address: those that are
 * being made and those that an earlier stream has left. Only a tunnel on which both sides have sent
 * END, to its last byte, comes back here, and whatever arrives on it before it is taken again
 * closes it.
 */
export class TunnelPool {
  readonly #destinations = new Map<string, Destination>();

  constructor(readonly pod: TunnelPod) {}

  /** Calls `user`, at once where there is an idle tunnel, unless it withdraws before. */
  request(peer: KnownPeer, user: TunnelUser): void {
    const key = keyOf(peer);
    let destination = this.#destinations.get(key);
    if (destination === undefined) {
      destination = new Destination(this.pod, peer, () => this.#destinations.delete(key));
      this.#destinations.set(key, destination);
    }
    destination.request(user);
  }

  /** `user` waits no longer. */
  withdraw(peer: KnownPeer, user: TunnelUser): void {
    this.#destinations.get(keyOf(peer))?.withdraw(user);
  }

  /** Takes a tunnel back on which nothing is under way. */
  park(peer: KnownPeer, tunnel: Tunnel): void {
    const { worker, counters } = this.pod;
    const isSpent = tunnel.closed || tunnel.epoch !== this.pod.epoch ||
      worker.now() - tunnel.opened > MAX_AGE_MILLISECONDS || !tunnel.current ||
      worker.tunnelIdleMilliseconds === 0 || !worker.peers.isCurrent(peer) ||
      worker.load.shouldShed;
    if (isSpent) {
      tunnel.close();
      counters.tunnelsOpen--;
      return;
    }
    const key = keyOf(peer);
    const destination = this.#destinations.get(key) ??
      new Destination(this.pod, peer, () => this.#destinations.delete(key));
    this.#destinations.set(key, destination);
    destination.give(tunnel, true);
  }

  /**
   * Closes the idle tunnels to one pod: one turned out to be dead, so the others are likely to be.
   */
  closeIdleTo(peer: KnownPeer): void {
    this.#destinations.get(keyOf(peer))?.closeIdle();
  }

  /** Closes the tunnels to pods that are no peers any more, or other ones now. */
  retain(isCurrent: (peer: KnownPeer) => boolean): void {
    for (const destination of [...this.#destinations.values()]) {
      if (!isCurrent(destination.peer)) destination.closeIdle();
    }
  }

  /**
   * Closes all idle tunnels: the pod shows another certificate, or trusts other roots, from now on.
   */
  closeIdle(): void {
    for (const destination of [...this.#destinations.values()]) destination.closeIdle();
  }

  /** Nothing comes of what is under way. */
  close(): void {
    for (const destination of [...this.#destinations.values()]) destination.close();
  }
}

/** A new pod with an old address is another one. */
function keyOf({ name, generation }: KnownPeer): string {
  return `${name} ${generation}`;
}

/**
 * The tunnels to one pod. While a burst of streams waits, one handshake is made at first and twice
 * as many each time that one has succeeded: short streams soon share a few tunnels, long ones soon
 * have one each.
 */
class Destination {
  /** The one that was used last is last, and taken first. */
  readonly #idle: IdleTunnel[] = [];
  readonly #waiting = new Set<TunnelUser>();
  readonly #dials = new Set<Dial>();
  #mostDials = 1;

  constructor(readonly pod: TunnelPod, readonly peer: KnownPeer, readonly empty: () => void) {}

  request(user: TunnelUser): void {
    for (let idle = this.#idle.pop(); idle !== undefined; idle = this.#idle.pop()) {
      idle.taken();
      if (idle.tunnel.current) {
        this.#forgetIfEmpty();
        return user.tunnelReady(idle.tunnel, true);
      }
      this.#close(idle.tunnel); // the wall clock has jumped, or it waited for long
    }
    this.#waiting.add(user);
    this.#dialMore();
  }

  withdraw(user: TunnelUser): void {
    this.#waiting.delete(user);
    this.#forgetIfEmpty();
  }

  give(tunnel: Tunnel, reused: boolean): void {
    const [user] = this.#waiting;
    if (user !== undefined) {
      this.#waiting.delete(user);
      user.tunnelReady(tunnel, reused);
    } else if (this.#idle.length >= MAX_IDLE) this.#close(tunnel);
    else this.#idle.push(new IdleTunnel(this.pod.worker, tunnel, (idle) => this.#ended(idle)));
    this.#forgetIfEmpty();
  }

  closeIdle(): void {
    for (const idle of this.#idle.splice(0)) {
      idle.taken();
      this.#close(idle.tunnel);
    }
    this.#forgetIfEmpty();
  }

  close(): void {
    for (const dial of this.#dials) dial.abort();
    this.#dials.clear();
    this.#waiting.clear();
    this.closeIdle();
  }

  #dialMore(): void {
    while (this.#dials.size < Math.min(this.#mostDials, this.#waiting.size)) {
      const dial: Dial = new Dial(this.pod, this.peer, {
        done: (tunnel) => this.#succeeded(dial, tunnel),
        failed: (failure) => this.#failed(dial, failure),
      });
      this.#dials.add(dial);
      dial.start();
    }
  }

  #succeeded(dial: Dial, tunnel: Tunnel): void {
    this.#dials.delete(dial);
    this.#mostDials = Math.min(2 * this.#mostDials, MAX_DIALS);
    this.give(tunnel, false);
    this.#dialMore();
  }

  #failed(dial: Dial, failure: Failure): void {
    this.#dials.delete(dial);
    this.#mostDials = 1;
    if (this.#dials.size > 0) return; // another one is under way
    const users = [...this.#waiting];
    this.#waiting.clear();
    this.#forgetIfEmpty();
    for (const user of users) user.tunnelFailed(failure);
  }

  #ended(idle: IdleTunnel): void {
    const index = this.#idle.indexOf(idle);
    if (index >= 0) this.#idle.splice(index, 1);
    this.#close(idle.tunnel);
    this.#forgetIfEmpty();
  }

  #close(tunnel: Tunnel): void {
    tunnel.close();
    this.pod.counters.tunnelsOpen--;
  }

  #forgetIfEmpty(): void {
    if (this.#idle.length + this.#waiting.size + this.#dials.size === 0) this.empty();
  }
}
