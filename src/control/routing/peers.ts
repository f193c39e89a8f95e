import { errorText } from "../../error_text.ts";
import { formatAddress, parseAddress } from "../../addresses.ts";
import { decodePeer, encodeIdentity, encodePeer, encodeSlice, LAYOUT } from "../../kernel/maps.ts";
import type { Redirector } from "../../kernel/redirector.ts";
import type { BpfMap } from "../../native/bpf_map.ts";
import { SystemError } from "../../native/errno.ts";
import type { RelayWorkers } from "../../relay/workers.ts";
import type { Peer } from "../../cluster/registry.ts";
import type { PeerChange, PeerIndex } from "../rules/peer_index.ts";
import { rangeOf, type Refusal } from "../rules/refusal.ts";
import { NumberedTexts } from "./numbered_texts.ts";
import type { Repairs } from "./problem.ts";
import { textOf } from "./remembered_parts.ts";
import { addressAt, wordsOf } from "./words.ts";

/**
 * Keeps the kernel's maps `peers`, `identities` and `slices` equal to the registry. A peer whose
 * identity could not be written is refused by the relay.
 */
export class Peers {
  readonly #map: BpfMap;
  readonly #identities: NumberedTexts;
  readonly #slices: NumberedTexts;
  readonly #workers: Pick<RelayWorkers, "peersChanged" | "peersLeaving">;
  readonly #index: Pick<PeerIndex, "get" | "size" | typeof Symbol.iterator>;
  #generation = 0;
  /** What an earlier agent has left is gone. */
  #isPruned = false;
  /** By address: what could not be written, and is tried again. */
  readonly #failed = new Map<string, Refusal>();

  constructor(
    redirector: Pick<Redirector, "peers" | "identities" | "slices">,
    workers: Pick<RelayWorkers, "peersChanged" | "peersLeaving">,
    index: Pick<PeerIndex, "get" | "size" | typeof Symbol.iterator>,
  ) {
    this.#map = redirector.peers;
    // The workers read an identity once: no number may be another's while the agent runs.
    this.#identities = new NumberedTexts(redirector.identities, encodeIdentity, 0xffff_ffff);
    this.#slices = new NumberedTexts(redirector.slices, encodeSlice, 0xffff);
    this.#workers = workers;
    this.#index = index;
  }

  /** Never throws: what could not be written is among {@link refusals}. */
  apply(changes: readonly PeerChange[]): void {
    this.#retry();
    // What goes makes room.
    const gone = changes.filter(({ now }) => now === undefined);
    const here = changes.filter(({ now }) => now !== undefined);
    const leaving = gone.flatMap(({ address, before }) =>
      before === undefined ? [] : [{ address, identity: before.identity }]
    );
    if (leaving.length > 0) this.#workers.peersLeaving(leaving);
    for (const { address, before, now } of [...gone, ...here]) {
      // The identity first: whoever finds the peer finds it, too.
      if (now !== undefined) {
        this.#identities.use(now.identity);
        this.#slices.use(now.slice, textOf(now));
      }
      this.#write(address, now, before);
      if (before !== undefined) {
        this.#identities.release(before.identity);
        this.#slices.release(before.slice);
      }
    }
    if (changes.some(({ before }) => before !== undefined)) this.#workers.peersChanged();
  }

  /** Removes what an earlier agent has left and no slice names any more. */
  prune(): void {
    this.#isPruned = true;
    for (const key of this.#map.keys()) {
      if (this.#index.get(formatAddress(key)) === undefined) this.#map.delete(key);
    }
    this.#identities.prune();
    this.#slices.prune();
    this.#retry();
  }

  /** Peers that could not be written: nobody may take their addresses for plain. */
  refusals(): Refusal[] {
    return [...this.#failed.values()];
  }

  /** Reads the kernel's maps whole, and writes again what is not as it was written. */
  audit(): Repairs {
    if (!this.#isPruned) return {};
    this.#retry();
    const { stale, wrong, right } = this.#compare();
    for (const key of stale) this.#map.delete(key);
    for (const peer of wrong) this.#write(peer.address, peer);
    const known = right + wrong.length + this.#failed.size;
    const missing = known < this.#index.size ? this.#missing() : [];
    for (const peer of missing) this.#write(peer.address, peer);
    const peers = stale.length + wrong.length + missing.length;
    if (peers > 0) this.#workers.peersChanged();
    return { peer: peers, identity: this.#identities.audit(), slice: this.#slices.audit() };
  }

  #compare(): { stale: Uint8Array<ArrayBuffer>[]; wrong: Peer[]; right: number } {
    const stale: Uint8Array<ArrayBuffer>[] = [];
    const wrong: Peer[] = [];
    let right = 0;
    for (const { keys, values, count } of this.#map.batches()) {
      const [keyWords, valueWords] = [wordsOf(keys), wordsOf(values)];
      for (let entry = 0; entry < count; entry++) {
        const peer = this.#index.get(addressAt(keyWords, entry * KEY_WORDS));
        if (peer === undefined) stale.push(keys.slice(entry * KEY, (entry + 1) * KEY));
        else if (this.#failed.has(peer.address)) continue;
        else if (this.#isRight(valueWords, entry * VALUE_WORDS, peer)) right++;
        else wrong.push(peer);
      }
    }
    return { stale, wrong, right };
  }

  #isRight(words: Uint32Array<ArrayBuffer>, at: number, peer: Peer): boolean {
    const readyAndSlice = words[at + READY] ?? 0;
    return words[at + IDENTITY] === this.#identities.numberOf(peer.identity) &&
      (readyAndSlice & 0xffff) === Number(peer.ready) &&
      readyAndSlice >>> 16 === this.#slices.numberOf(peer.slice);
  }

  #missing(): Peer[] {
    return [...this.#index].filter(({ address }) =>
      !this.#failed.has(address) && this.#map.get(keyOf(address)) === undefined
    );
  }

  #retry(): void {
    for (const address of this.#failed.keys()) this.#write(address, this.#index.get(address));
  }

  #write(address: string, peer: Peer | undefined, before?: Peer): void {
    const key = keyOf(address);
    try {
      if (peer === undefined) this.#map.delete(key);
      else {
        const identity = this.#identities.numberOf(peer.identity);
        const slice = this.#slices.numberOf(peer.slice);
        const generation = this.#generationOf(key, peer, before);
        this.#map.set(key, encodePeer({ identity, generation, ready: peer.ready, slice }));
      }
      this.#failed.delete(address);
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      this.#failed.set(address, {
        where: address,
        message:
          `is a peer's (${peer?.pod}), but cannot be written, so connections to it are refused; ` +
          `it is tried again: ${errorText(error)}`,
        ranges: [rangeOf(address)],
        isWide: false,
      });
    }
  }

  /** The number of the pod that has the address now: another one only for another pod. */
  #generationOf(key: Uint8Array<ArrayBuffer>, now: Peer, before: Peer | undefined): number {
    const isSame = before?.uid === now.uid && before.identity === now.identity;
    const value = isSame ? this.#map.get(key) : undefined;
    return value === undefined ? ++this.#generation : decodePeer(value).generation;
  }
}

/** Of `struct address` and `struct peer`, in bytes and in words. */
const KEY = LAYOUT.address.size;
const KEY_WORDS = KEY / 4;
const VALUE_WORDS = LAYOUT.peer.size / 4;
const IDENTITY = LAYOUT.peer.identity / 4;
const READY = LAYOUT.peer.ready / 4;

function keyOf(address: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(parseAddress(address));
}
