import { FairQueue } from "../../fair_queue.ts";
import type { Expiring } from "./deadlines.ts";
import type { EventLoop } from "./event_loop.ts";
import type { ConnectionReport, StreamReport, WorkerEvent } from "../messages.ts";

/** How long a line may wait for others. */
const BATCH_MILLISECONDS = 100;

/** Lines in a batch; more are counted only. So a worker tells at most 10,000 in a second. */
const MAX_BATCH = 1_000;

/** Of failed streams, which a hostile client can make as many as it likes. */
const MAX_FAILED = 20;

/**
 * The streams that have ended, told to the main thread in batches. Where a batch has no room for
 * all, the namespaces that have most in it are told less of.
 */
export class AccessLog implements Expiring {
  readonly #clean = new FairQueue<StreamReport>(MAX_BATCH);
  readonly #failed = new FairQueue<StreamReport>(MAX_FAILED);
  readonly #left = new Map<string, number>();
  #ended = 0;

  /** @param every one in so many streams that ended well is told. */
  constructor(
    readonly loop: Pick<EventLoop, "deadlines">,
    readonly every: number,
    readonly report: (event: WorkerEvent) => void,
  ) {}

  /**
   * A stream of a pod in `namespace` has ended, with `failure` unless both sides had ended.
   * `describe` is called only when it will be told.
   */
  finished(
    namespace: string,
    failure: string | undefined,
    describe: () => ConnectionReport | undefined,
  ): void {
    if (failure === undefined && this.#ended++ % this.every !== 0) return;
    const batch = failure === undefined ? this.#clean : this.#failed;
    if (!batch.hasRoomFor(namespace)) return this.#leave(namespace);
    const stream = describe();
    if (stream === undefined) return;
    if (this.#clean.size + this.#failed.size === 0) {
      this.loop.deadlines.arm(this, BATCH_MILLISECONDS);
    }
    const loser = batch.add(namespace, failure === undefined ? stream : { ...stream, failure });
    if (loser !== undefined) this.#leave(loser);
  }

  /** The batch is due. */
  expired(): void {
    const streams = [...taken(this.#clean), ...taken(this.#failed)];
    this.report({ type: "streams", streams, left: new Map(this.#left) });
    this.#left.clear();
  }

  #leave(namespace: string): void {
    this.#left.set(namespace, (this.#left.get(namespace) ?? 0) + 1);
  }
}

function* taken<T>(queue: FairQueue<T>): Generator<T> {
  for (let next = queue.take(); next !== undefined; next = queue.take()) yield next;
}
