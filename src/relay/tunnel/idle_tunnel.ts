import type { Expiring } from "../loop/deadlines.ts";
import type { WorkerContext } from "../loop/worker_context.ts";
import { FrameError } from "./frame.ts";
import type { Tunnel, TunnelOwner } from "./tunnel.ts";

/** The owner of a tunnel that carries no stream, on which no frame may arrive. */
export abstract class StreamlessOwner implements TunnelOwner {
  readonly accepting = true;

  abstract secured(tunnel: Tunnel): void;

  abstract lost(reason: string, error?: unknown): void;

  open(): void {
    this.#unexpected("OPEN");
  }

  accept(): void {
    this.#unexpected("ACCEPT");
  }

  refuse(): void {
    this.#unexpected("REFUSE");
  }

  data(): void {
    this.#unexpected("DATA");
  }

  end(): void {
    this.#unexpected("END");
  }

  reset(): void {
    this.#unexpected("RESET");
  }

  batchEnd(): void {}

  drained(): void {}

  #unexpected(frame: string): never {
    throw new FrameError(`${frame} on a tunnel that carries no stream`);
  }
}

/** A tunnel that waits in the pool for its next stream. */
export class IdleTunnel extends StreamlessOwner implements Expiring {
  /** @param ended called when it is of no use any more; the tunnel is the callee's to close. */
  constructor(
    readonly worker: WorkerContext,
    readonly tunnel: Tunnel,
    readonly ended: (idle: IdleTunnel) => void,
  ) {
    super();
    tunnel.owner = this;
    worker.loop.deadlines.arm(this, worker.tunnelIdleMilliseconds);
  }

  /** Somebody else owns the tunnel now. */
  taken(): void {
    this.worker.loop.deadlines.disarm(this);
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
