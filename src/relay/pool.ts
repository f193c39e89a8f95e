import type { Expiring } from "./deadlines.ts";
import { FrameError } from "./frame.ts";
import type { KnownPeer } from "./known_peers.ts";
import type { Tunnel, TunnelOwner } from "./tunnel.ts";

/** Shorter than the inbound side's patience, so that a tunnel is not taken while it is being closed. */
const IDLE_MILLISECONDS = 10_000;

/** However busy a tunnel is, both sides prove who they are again after this. */
const MAX_AGE_MILLISECONDS = 600_000;

/** Per destination: what a burst leaves behind. */
const MAX_IDLE = 64;

/**
 * One pod's outbound tunnels between two streams, by destination. Only a tunnel on which both sides have sent
 * END, to its last byte, comes here, and whatever arrives on it before it is taken again closes it.
 */
export class TunnelPool {
  /** By destination; the tunnel that was used last is last, and taken first. */
  readonly #idle = new Map<string, IdleTunnel[]>();

  /** @param closed called for each tunnel that ends here. */
  constructor(readonly closed: () => void) {}

  take(peer: KnownPeer): Tunnel | undefined {
    const idle = this.#idle.get(keyOf(peer))?.at(-1);
    if (idle === undefined) return undefined;
    this.#remove(idle);
    return idle.tunnel;
  }

  park(peer: KnownPeer, tunnel: Tunnel): void {
    const key = keyOf(peer);
    const idle = this.#idle.get(key) ?? [];
    const tooOld = performance.now() - tunnel.opened > MAX_AGE_MILLISECONDS;
    if (tunnel.closed || tooOld || idle.length >= MAX_IDLE) {
      tunnel.close();
      return this.closed();
    }
    this.#idle.set(key, idle);
    idle.push(new IdleTunnel(key, peer, tunnel, (ended) => this.#end(ended)));
  }

  /** Closes the tunnels to pods that are no peers any more, or other ones now. */
  retain(isCurrent: (peer: KnownPeer) => boolean): void {
    for (const idle of this.#idle.values()) {
      const [first] = idle;
      if (first !== undefined && !isCurrent(first.peer)) this.#closeAll(idle);
    }
  }

  /** Closes all: the pod goes, or shows another certificate from now on. */
  clear(): void {
    for (const idle of this.#idle.values()) this.#closeAll(idle);
  }

  #closeAll(idle: IdleTunnel[]): void {
    for (const each of [...idle]) this.#end(each);
  }

  #end(idle: IdleTunnel): void {
    this.#remove(idle);
    idle.tunnel.close();
    this.closed();
  }

  #remove(idle: IdleTunnel): void {
    idle.tunnel.bench.loop.deadlines.disarm(idle);
    const others = this.#idle.get(idle.key)?.filter((each) => each !== idle) ?? [];
    if (others.length === 0) this.#idle.delete(idle.key);
    else this.#idle.set(idle.key, others);
  }
}

/** A new pod with an old address is another one. */
function keyOf({ name, generation }: KnownPeer): string {
  return `${name} ${generation}`;
}

/** A parked tunnel. Nothing may arrive on it. */
class IdleTunnel implements TunnelOwner, Expiring {
  readonly accepting = true;

  constructor(
    readonly key: string,
    readonly peer: KnownPeer,
    readonly tunnel: Tunnel,
    readonly ended: (idle: IdleTunnel) => void,
  ) {
    tunnel.owner = this;
    tunnel.bench.loop.deadlines.arm(this, IDLE_MILLISECONDS);
  }

  expired(): void {
    this.ended(this);
  }

  lost(): void {
    this.ended(this);
  }

  open = unexpected;
  accept = unexpected;
  refuse = unexpected;
  data = unexpected;
  end = unexpected;
  reset = unexpected;
  secured = unexpected;

  batchEnd(): void {}

  drained(): void {}
}

function unexpected(): never {
  throw new FrameError("a frame arrived on an idle tunnel");
}
