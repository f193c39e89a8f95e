import { BetweenStreams } from "./between_streams.ts";
import type { Expiring } from "./deadlines.ts";
import type { RelayPod } from "./pod.ts";
import type { Tunnel, TunnelOwner } from "./tunnel.ts";

/** A tunnel that waits in the pool for its next stream. */
export class IdleTunnel extends BetweenStreams implements TunnelOwner, Expiring {
  /** @param ended called when it is of no use any more; the tunnel is the callee's to close. */
  constructor(
    readonly pod: RelayPod,
    readonly tunnel: Tunnel,
    readonly ended: (idle: IdleTunnel) => void,
  ) {
    super();
    tunnel.owner = this;
    const { loop, tunnelIdleMilliseconds } = pod.bench;
    loop.deadlines.arm(this, tunnelIdleMilliseconds);
  }

  /** Somebody else owns the tunnel now. */
  taken(): void {
    this.pod.bench.loop.deadlines.disarm(this);
  }

  expired(): void {
    this.ended(this);
  }

  lost(): void {
    this.taken();
    this.ended(this);
  }

  secured(): void {
    throw new Error("a second handshake");
  }
}
