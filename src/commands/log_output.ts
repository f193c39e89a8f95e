/**
 * Lines of log on a descriptor that never waits: a reader that has stopped must not stop whoever logs. What does not fit is
 * dropped, and how many lines that were is said as soon as there is room again.
 */
export class LogOutput {
  readonly #encoder = new TextEncoder();
  readonly #send: (bytes: Uint8Array) => number;
  readonly #notice: (dropped: number) => string;
  /** Of a line that was begun: nothing else may be written before it. */
  #rest = new Uint8Array();
  #dropped = 0;

  /**
   * @param send says how many bytes it has taken, or throws.
   * @param notice the line that says that so many were dropped.
   */
  constructor(send: (bytes: Uint8Array) => number, notice: (dropped: number) => string) {
    this.#send = send;
    this.#notice = notice;
  }

  /** Never throws. `line` ends with a line feed. */
  write(line: string): void {
    if (this.#dropped > 0 && this.#isDone() && this.#begin(this.#notice(this.#dropped))) {
      this.#dropped = 0;
    }
    if (this.#dropped > 0 || !this.#isDone() || !this.#begin(line)) this.#dropped++;
  }

  /** Goes on with what was begun. */
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
