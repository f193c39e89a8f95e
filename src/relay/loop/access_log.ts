import type { Expiring } from "./deadlines.ts";
import type { EventLoop } from "./event_loop.ts";
import type { ConnectionReport, StreamReport, WorkerEvent } from "../messages.ts";

/** How long a line may wait for others. */
const BATCH_MILLISECONDS = 100;

/** Lines in a batch; more are counted only. So a worker tells at most 10,000 in a second. */
const MAX_BATCH = 1_000;

/** Of failed streams, which a hostile client can make as many as it likes. */
const MAX_FAILED = 20;

/** The streams that have ended, told to the main thread in batches. */
export class AccessLog implements Expiring {
  #batch: StreamReport[] = [];
  #failed = 0;
  #left = 0;
  #clean = 0;

  /** @param every one in so many streams that ended well is told. */
  constructor(
    readonly loop: EventLoop,
    readonly every: number,
    readonly report: (event: WorkerEvent) => void,
  ) {}

  /** `failure` unless both sides had ended. `describe` is called only when it will be told. */
  finished(failure: string | undefined, describe: () => ConnectionReport | undefined): void {
    if (failure === undefined && this.#clean++ % this.every !== 0) return;
    const isFull = this.#batch.length >= MAX_BATCH ||
      (failure !== undefined && this.#failed >= MAX_FAILED);
    if (isFull) return void this.#left++;
    const stream = describe();
    if (stream === undefined) return;
    if (failure !== undefined) this.#failed++;
    if (this.#batch.length === 0) this.loop.deadlines.arm(this, BATCH_MILLISECONDS);
    this.#batch.push(failure === undefined ? stream : { ...stream, failure });
  }

  /** The batch is due. */
  expired(): void {
    this.report({ type: "streams", streams: this.#batch, left: this.#left });
    this.#batch = [];
    this.#failed = this.#left = 0;
  }
}
