/** Published whenever a worker has moved so much more. */
const QUANTUM = 4 * 1024 * 1024;

/**
 * A worker that took longer for it, or has not published for longer, is not busy: it moves less
 * than 42 MB/s.
 */
const BUSY_MILLISECONDS = 100;

/** A handshake costs a millisecond. */
const SHED_MILLISECONDS = 50;

/**
 * Per worker: bytes per millisecond, 0 when it is not busy, and when that was published, in
 * milliseconds since 1970.
 */
const FIELDS = 2;

/**
 * How much each worker moves, in memory that all of them share. The kernel gives a connection to a
 * worker by chance (SO_REUSEPORT), also to one that a bulk transfer keeps busy, behind which a
 * small request waits for its thread to run: 0.4 ms become 25 ms. Connections are counted by
 * nobody: a thousand idle ones are no load.
 */
export class Load {
  readonly #published: Float64Array;
  #moved = 0;
  #since: number;
  /** At the time of the last publication. */
  #wasBusy = false;
  #shed = -Infinity;

  constructor(
    memory: SharedArrayBuffer,
    readonly own: number,
    readonly now: () => number = () => Date.now(),
  ) {
    this.#published = new Float64Array(memory);
    this.#since = now();
  }

  /** How many there are, this one among them. */
  get workers(): number {
    return this.#published.length / FIELDS;
  }

  /** What so many workers need. */
  static memoryFor(workers: number): SharedArrayBuffer {
    return new SharedArrayBuffer(workers * FIELDS * Float64Array.BYTES_PER_ELEMENT);
  }

  /** This worker has moved so many bytes. */
  add(bytes: number): void {
    this.#moved += bytes;
    if (this.#moved < QUANTUM) return;
    const now = this.now();
    const rate = this.#moved / Math.max(1, now - this.#since);
    this.#wasBusy = rate >= QUANTUM / BUSY_MILLISECONDS;
    this.#published[this.own * FIELDS] = this.#wasBusy ? rate : 0;
    this.#published[this.own * FIELDS + 1] = now;
    this.#moved = 0;
    this.#since = now;
  }

  /**
   * The worker that should take a new connection in this one's place; undefined: this one is as
   * good as any.
   */
  lighter(): number | undefined {
    if (!this.#wasBusy) return undefined; // mostly, and then not even the time matters
    const now = this.now();
    let [least, lightest] = [this.#rateOf(this.own, now) / 2, this.own];
    if (least === 0) return undefined;
    for (let worker = 0; worker < this.#published.length / FIELDS; worker++) {
      const rate = this.#rateOf(worker, now);
      if (rate < least) [least, lightest] = [rate, worker];
    }
    return lightest === this.own ? undefined : lightest;
  }

  /**
   * Whether a tunnel that waits for its next stream should rather be closed: the next one may then
   * be made elsewhere. Now and then only: if it is many short streams that keep this worker busy,
   * handshakes would not help.
   */
  get shouldShed(): boolean {
    if (this.lighter() === undefined) return false;
    const now = this.now();
    if (now - this.#shed < SHED_MILLISECONDS) return false;
    this.#shed = now;
    return true;
  }

  #rateOf(worker: number, now: number): number {
    const [rate, published] = [worker * FIELDS, worker * FIELDS + 1];
    const isFresh = now - (this.#published[published] ?? 0) <= BUSY_MILLISECONDS;
    return isFresh ? this.#published[rate] ?? 0 : 0;
  }
}
