import { FairQueue } from "../fair_queue.ts";

/**
 * Lines of log on a descriptor that never waits: a reader that has stopped must not stop whoever
 * logs. A bounded number of lines waits for the reader; of more, those are dropped whose owner has
 * most of them, so that nobody's flood costs others their lines. How many were dropped is said as
 * soon as there is room again.
 */
export class LogOutput {
  readonly #encoder = new TextEncoder();
  readonly #send: (bytes: Uint8Array) => number;
  readonly #notice: (dropped: ReadonlyMap<string, number>) => string;
  readonly #waiting: FairQueue<string>;
  /** Of a line that was begun: nothing else may be written before it. */
  #rest = new Uint8Array();
  /** By owner. */
  readonly #dropped = new Map<string, number>();
  #again: ReturnType<typeof setTimeout> | undefined;

  /**
   * @param send says how many bytes it has taken, or throws.
   * @param notice the line that says how many of whose were dropped.
   * @param most lines that may wait.
   */
  constructor(
    send: (bytes: Uint8Array) => number,
    notice: (dropped: ReadonlyMap<string, number>) => string,
    most = MOST_WAITING,
  ) {
    this.#send = send;
    this.#notice = notice;
    this.#waiting = new FairQueue(most);
  }

  /** Never throws. `line` ends with a line feed. `owner`: whose flood it may be part of. */
  write(line: string, owner = ""): void {
    if (!this.#catchUp() || !this.#begin(line)) this.#wait(line, owner);
  }

  #wait(line: string, owner: string): void {
    const loser = this.#waiting.add(owner, line);
    if (loser !== undefined) {
      const name = this.#dropped.size < MOST_OWNERS || this.#dropped.has(loser) ? loser : "";
      this.#dropped.set(name, (this.#dropped.get(name) ?? 0) + 1);
    }
    this.#catchUpSoon();
  }

  #catchUpSoon(): void {
    if (this.#again !== undefined) return;
    this.#again = setTimeout(() => {
      this.#again = undefined;
      if (!this.#catchUp()) this.#catchUpSoon();
    }, AGAIN_MILLISECONDS);
    Deno.unrefTimer(this.#again); // a process that ends does not wait for who may never read
  }

  /**
   * Goes on with what was begun, and then with what waits; false while there is no room for all of
   * it.
   */
  #catchUp(): boolean {
    if (!this.#isDone()) return false;
    if (this.#dropped.size > 0 && this.#begin(this.#notice(this.#dropped))) this.#dropped.clear();
    for (let line = this.#waiting.first; line !== undefined; line = this.#waiting.first) {
      if (!this.#isDone() || !this.#begin(line)) return false;
      this.#waiting.take();
    }
    return this.#isDone() && this.#dropped.size === 0;
  }

  #isDone(): boolean {
    if (this.#rest.length > 0) this.#rest = this.#rest.subarray(this.#taken(this.#rest));
    return this.#rest.length === 0;
  }

  /** False: nothing of it could be written. */
  #begin(line: string): boolean {
    const bytes = this.#encoder.encode(line);
    const taken = this.#taken(bytes);
    this.#rest = taken === 0 ? this.#rest : bytes.subarray(taken);
    return taken > 0;
  }

  #taken(bytes: Uint8Array): number {
    try {
      return this.#send(bytes);
    } catch {
      return 0; // EAGAIN, or EPIPE: then nobody reads it ever
    }
  }
}

/** A pipe holds some 300 more. */
const MOST_WAITING = 1_000;

/** Told apart; what was dropped of others' is counted as nobody's. */
const MOST_OWNERS = 1_024;

const AGAIN_MILLISECONDS = 20;
