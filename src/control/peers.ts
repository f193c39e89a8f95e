import { formatAddress, parseAddress } from "../addresses.ts";
import { PRESENT } from "../kernel/maps.ts";
import type { BpfMap } from "../native/bpf_map.ts";
import type { RelayWorkers } from "../relay/workers.ts";
import type { Peer } from "./desired.ts";

/** Keeps the kernel's `peers` map and the workers' list of peers equal to the registry. */
export class Peers {
  /** What the kernel's map holds, also what an earlier agent left there. */
  readonly #inKernel: Set<string>;
  #current: ReadonlyMap<string, Peer> = new Map();

  constructor(readonly map: BpfMap, readonly workers: RelayWorkers) {
    this.#inKernel = new Set(
      map.keys().map((key) => formatAddress(key)),
    );
  }

  list(): Peer[] {
    return [...this.#current.values()];
  }

  /**
   * A new peer is known to the workers before the kernel redirects to it, and one that is gone is redirected
   * to no more before the workers forget it. While `complete` is false, `peers` may lack some: none is removed.
   */
  async set(peers: ReadonlyMap<string, Peer>, complete: boolean): Promise<void> {
    this.#current = peers;
    for (const address of this.#inKernel) {
      if (peers.has(address) || !complete) continue;
      this.map.delete(keyOf(address));
      this.#inKernel.delete(address);
    }
    this.workers.setPeers(peers);
    const added = [...peers.keys()].filter((address) => !this.#inKernel.has(address));
    if (added.length === 0) return;
    await this.workers.report(); // an answer means that the commands before it were obeyed
    for (const address of added) {
      if (!this.#current.has(address)) continue; // withdrawn meanwhile
      this.map.set(keyOf(address), PRESENT);
      this.#inKernel.add(address);
    }
  }
}

function keyOf(address: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(parseAddress(address));
}
