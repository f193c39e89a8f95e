import { formatAddress } from "../../addresses.ts";
import { decodePeer, decodeText, encodeNumber } from "../../kernel/maps.ts";
import type { BpfMap } from "../../native/bpf_map.ts";
import type { LeavingPeer } from "../messages.ts";

/** Who is expected behind an address. The handshake decides whether it is so. */
export interface KnownPeer {
  /** 16 bytes. */
  readonly address: Uint8Array<ArrayBuffer>;
  /** Canonical text. */
  readonly name: string;
  /** SPIFFE ID. */
  readonly identity: string;
  /** Never the same for two pods that had the address one after the other. */
  readonly generation: number;
  /** Its node's agent can serve it; else a stream to it waits a little. */
  readonly ready: boolean;
  /** It has left a moment ago, and is to be asked for anew each time. */
  readonly isLeaving?: boolean;
  /** {@link KnownPeers.version} when this was read. */
  readonly version: number;
}

/**
 * The registry as the kernel's maps have it: looked up when a stream begins (under a microsecond),
 * so that no worker keeps a copy of a cluster's 150,000 peers.
 */
export class KnownPeers {
  /** By number. A number is never used again while the agent runs. */
  readonly #identities = new Map<number, string>();

  /** Those that have just gone, by address in canonical text. */
  readonly #left = new Map<string, { readonly identity: string; readonly until: number }>();

  #version = 0;

  constructor(readonly peers: Pick<BpfMap, "get">, readonly identities: Pick<BpfMap, "get">) {}

  /**
   * Another number since an entry was removed or changed; while it is the same, what was found is
   * still true.
   */
  get version(): number {
    return this.#version;
  }

  /** Some entries are gone or say something else. */
  changed(): void {
    this.#version++;
  }

  /** These are about to go. */
  leaving(peers: readonly LeavingPeer[], now: number): void {
    for (const [address, { until }] of this.#left) if (until <= now) this.#left.delete(address);
    for (const { address, identity } of peers.slice(0, MOST_LEAVING)) {
      this.#left.set(address, { identity, until: now + LEAVING_MILLISECONDS });
    }
  }

  /**
   * As {@link find}, or one that has left a moment ago: what the kernel has sent to the relay
   * before that, and what such a pod's relay has begun, still gets there.
   */
  findLeaving(bytes: Uint8Array, now: number): KnownPeer | undefined {
    const known = this.find(bytes);
    if (known !== undefined || this.#left.size === 0) return known;
    const address = new Uint8Array(bytes);
    const name = formatAddress(address);
    const left = this.#left.get(name);
    if (left === undefined || left.until <= now) return undefined;
    const { identity } = left;
    const { version } = this;
    return { address, name, identity, generation: NONE, ready: true, isLeaving: true, version };
  }

  find(bytes: Uint8Array): KnownPeer | undefined {
    const address = new Uint8Array(bytes);
    const value = this.peers.get(address);
    if (value === undefined) return undefined;
    const { identity: number, generation, ready } = decodePeer(value);
    const identity = this.#identities.get(number) ?? this.#read(number);
    if (identity === undefined) return undefined; // withdrawn between the two lookups
    const name = formatAddress(address);
    return { address, name, identity, generation, ready, version: this.#version };
  }

  /** Whether the address is still the same pod's. */
  isCurrent({ address, generation, version }: KnownPeer): boolean {
    if (version === this.#version) return true;
    const value = this.peers.get(address);
    return value !== undefined && decodePeer(value).generation === generation;
  }

  #read(number: number): string | undefined {
    const value = this.identities.get(encodeNumber(number));
    if (value === undefined) return undefined;
    const identity = decodeText(value);
    this.#identities.set(number, identity);
    return identity;
  }
}

/** As long as pods that leave are served, and a little more than what is on its way needs. */
const LEAVING_MILLISECONDS = 6_000;

/** More at a time are a node that has gone, with everything that was on its way. */
const MOST_LEAVING = 1_000;

/** No peer's generation: they are counted from 1. */
const NONE = 0;
