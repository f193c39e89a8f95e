import { formatAddress, parseAddress } from "../../addresses.ts";
import {
  decodeNumber,
  decodePeer,
  encodeIdentity,
  encodeNumber,
  encodePeer,
} from "../../kernel/maps.ts";
import type { Redirector } from "../../kernel/redirector.ts";
import type { BpfMap } from "../../native/bpf_map.ts";
import type { RelayWorkers } from "../../relay/workers.ts";
import type { PeerChange } from "../rules/peer_index.ts";

/** Keeps the kernel's maps `peers` and `identities` equal to the registry. */
export class Peers {
  readonly #map: BpfMap;
  readonly #identities: Identities;
  #generation = 0;

  constructor(
    redirector: Pick<Redirector, "peers" | "identities">,
    readonly workers: Pick<RelayWorkers, "peersChanged">,
  ) {
    this.#map = redirector.peers;
    this.#identities = new Identities(redirector.identities);
  }

  apply(changes: readonly PeerChange[]): void {
    for (const change of changes) {
      const { address, before, now } = change;
      const key = new Uint8Array(parseAddress(address));
      if (now === undefined) this.#map.delete(key);
      else {
        // The identity first: whoever finds the peer finds it, too.
        const identity = this.#identities.use(now.identity);
        const { ready } = now;
        this.#map.set(
          key,
          encodePeer({ identity, generation: this.#generationOf(key, change), ready }),
        );
      }
      if (before !== undefined) this.#identities.release(before.identity);
    }
    if (changes.some(({ before }) => before !== undefined)) this.workers.peersChanged();
  }

  /** The number of the pod that has the address now: another one only for another pod. */
  #generationOf(key: Uint8Array<ArrayBuffer>, { before, now }: PeerChange): number {
    const isSame = before !== undefined && before.uid === now?.uid &&
      before.identity === now.identity;
    const value = isSame ? this.#map.get(key) : undefined;
    return value === undefined ? ++this.#generation : decodePeer(value).generation;
  }

  /** Removes what an earlier agent has left and no slice names any more. */
  prune(isPeer: (address: string) => boolean): void {
    for (const key of this.#map.keys()) if (!isPeer(formatAddress(key))) this.#map.delete(key);
    this.#identities.prune();
  }
}

/** SPIFFE IDs by number, as long as a peer has them. A number is never used again while the agent runs. */
class Identities {
  readonly #map: BpfMap;
  readonly #known = new Map<string, { readonly number: number; peers: number }>();
  /** An earlier agent's numbers, which peers may refer to until all have been written anew. */
  readonly #earlier: Set<number>;
  #next: number;

  constructor(map: BpfMap) {
    this.#map = map;
    this.#earlier = new Set(map.keys().map(decodeNumber));
    this.#next = [...this.#earlier].reduce((most, number) => Math.max(most, number), 0) + 1;
  }

  use(id: string): number {
    const known = this.#known.get(id);
    if (known !== undefined) {
      known.peers++;
      return known.number;
    }
    const number = this.#next++;
    this.#map.set(encodeNumber(number), encodeIdentity(id));
    this.#known.set(id, { number, peers: 1 });
    return number;
  }

  release(id: string): void {
    const known = this.#known.get(id);
    if (known === undefined || --known.peers > 0) return;
    this.#known.delete(id);
    this.#map.delete(encodeNumber(known.number));
  }

  prune(): void {
    for (const number of this.#earlier) this.#map.delete(encodeNumber(number));
    this.#earlier.clear();
  }
}
