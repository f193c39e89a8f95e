/** How long a port that was found to be forwarded is taken to be so still. */
const FORWARDED_MILLISECONDS = 60_000;

/** Of a pod; more are found again each time. */
const MAX_FORWARDED = 1_024;

/** The ports of a pod that lead into a namespace inside it, as far as streams have shown. */
export class ForwardedPorts {
  /** Until when. */
  readonly #ports = new Map<number, number>();

  add(port: number, now: number): void {
    if (this.#ports.size >= MAX_FORWARDED) this.#ports.clear();
    this.#ports.set(port, now + FORWARDED_MILLISECONDS);
  }

  has(port: number, now: number): boolean {
    const until = this.#ports.get(port);
    if (until === undefined) return false;
    if (now < until) return true;
    this.#ports.delete(port);
    return false;
  }
}
