/** Per pod and worker. */
const MOST_OF_A_POD = 1_024;

/**
 * Per worker: some 30 KB each, so that strangers cannot take the agent's memory, whatever number of
 * pods they choose.
 */
export const MOST_UNOPENED = 4_096;

/** A tunnel that has not sent its first OPEN. */
export interface UnopenedTunnel {
  readonly pod: object;
  /** Ends, for a newer one. */
  evict(): void;
}

/**
 * The inbound tunnels of one worker that have not sent their first OPEN: what strangers can occupy.
 * When there are too many, a newer one takes the place of any other, of the same pod or of the one
 * that has most. An honest client is done after milliseconds and is hardly ever hit; were the newer
 * one refused, whoever came first could keep all others out until the deadline (compare RFC 4987
 * section 3.3).
 */
export class UnopenedTunnels {
  readonly #pods = new Map<object, Members>();
  #size = 0;

  constructor(readonly mostOfAPod = MOST_OF_A_POD, readonly most = MOST_UNOPENED) {}

  get size(): number {
    return this.#size;
  }

  add(tunnel: UnopenedTunnel): void {
    const { pod } = tunnel;
    const members = this.#pods.get(pod) ?? new Members();
    if (members.size >= this.mostOfAPod) members.any()?.evict();
    else if (this.#size >= this.most) this.#largest()?.any()?.evict();
    this.#pods.set(pod, members);
    members.add(tunnel);
    this.#size++;
  }

  /** It has sent OPEN, or ended; one that is not there is no error. */
  delete(tunnel: UnopenedTunnel): void {
    const members = this.#pods.get(tunnel.pod);
    if (!members?.delete(tunnel)) return;
    this.#size--;
    if (members.size === 0) this.#pods.delete(tunnel.pod);
  }

  #largest(): Members | undefined {
    let largest: Members | undefined;
    for (const members of this.#pods.values()) {
      if (largest === undefined || members.size > largest.size) largest = members;
    }
    return largest;
  }
}

/** A set of which any member can be found at once. */
class Members {
  readonly #list: UnopenedTunnel[] = [];
  readonly #places = new Map<UnopenedTunnel, number>();

  get size(): number {
    return this.#list.length;
  }

  any(): UnopenedTunnel | undefined {
    return this.#list[Math.floor(Math.random() * this.#list.length)];
  }

  add(tunnel: UnopenedTunnel): void {
    this.#places.set(tunnel, this.#list.length);
    this.#list.push(tunnel);
  }

  delete(tunnel: UnopenedTunnel): boolean {
    const place = this.#places.get(tunnel);
    if (place === undefined) return false;
    this.#places.delete(tunnel);
    const last = this.#list.pop();
    if (last !== undefined && last !== tunnel) {
      this.#list[place] = last;
      this.#places.set(last, place);
    }
    return true;
  }
}
