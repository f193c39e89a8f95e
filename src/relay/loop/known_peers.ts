import { formatAddress } from "../../addresses.ts";
import { decodeIdentity, decodePeer, encodeNumber } from "../../kernel/maps.ts";
import type { BpfMap } from "../../native/bpf_map.ts";

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
  /** {@link KnownPeers.version} when this was read. */
  readonly version: number;
}

/**
 * The registry as the kernel's maps have it: looked up when a stream begins (under a microsecond), so that
 * no worker keeps a copy of a cluster's 150,000 peers.
 */
export class KnownPeers {
  /** By number. A number is never used again while the agent runs. */
  readonly #identities = new Map<number, string>();

  #version = 0;

  constructor(readonly peers: Pick<BpfMap, "get">, readonly identities: Pick<BpfMap, "get">) {}

  /** Another number since an entry was removed or changed; while it is the same, what was found is still true. */
  get version(): number {
    return this.#version;
  }

  /** Some entries are gone or say something else. */
  changed(): void {
    this.#version++;
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
    const identity = decodeIdentity(value);
    this.#identities.set(number, identity);
    return identity;
  }
}
