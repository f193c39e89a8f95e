import type { BpfMap } from "../native/bpf_map.ts";
import type { Endpoint } from "../native/socket_address.ts";
import { bootTime, wallClock } from "./boot_time.ts";
import { decodeEndpoint, decodeId, encodeId, encodeNumber, LAYOUT } from "./maps.ts";

/**
 * What one pod has sent to one peer outside the tunnel, or to all those that have no count of their
 * own.
 */
export interface GuardCount {
  /** Its cgroup's ID. */
  readonly pod: bigint;
  /**
   * 16 bytes. Undefined: all that the pod has sent by UDP; by TCP, what is beyond the peers that
   * are counted singly.
   */
  readonly peer: Uint8Array | undefined;
  readonly protocol: "tcp" | "udp";
  /**
   * By whom it was seen: the guard of the pod's cgroup or that of its device. Both may have seen
   * the same.
   */
  readonly seen: "cgroup" | "device";
  /** As the kernel hands them on: one may be 64 KiB. */
  readonly packets: number;
  /** From the IP header on. */
  readonly bytes: number;
  /** Behind the TCP or UDP header: what opens, acknowledges or ends a connection has none. */
  readonly payloadBytes: number;
  /** How many of the packets went no further. */
  readonly droppedPackets: number;
  /** Of what either guard has seen. */
  readonly first: {
    readonly source: Endpoint;
    readonly destination: Endpoint;
    /** Wall clock. */
    readonly atMilliseconds: number;
  };
  readonly lastMilliseconds: number;
}

/** By their numbers (bpf/maps.h, enum guard_place). */
const PLACES = ["cgroup", "device"] as const;

const PROTOCOLS = { tcp: 6, udp: 17 } as const;

/** What pods have sent to peers outside the tunnel since they were enrolled. */
export class GuardCounts {
  constructor(readonly map: BpfMap) {}

  /** Those with a packet at least. */
  all(): GuardCount[] {
    const boot = bootTime();
    return [...this.map.entries()].flatMap(({ key, value }) => decode(key, value, boot));
  }

  /**
   * Counts from now on what a pod sends, by its cgroup's ID: from then on there is an entry for it,
   * however full the map. Mends what {@link counts} denies, and changes nothing where it does not.
   * Throws a SystemError.
   */
  count(pod: bigint): void {
    for (const key of keysOf(pod)) this.map.add(key, new Uint8Array(this.map.valueSize));
  }

  /** Whether what a pod sends is counted. */
  counts(pod: bigint): boolean {
    return keysOf(pod).every((key) => this.map.has(key));
  }

  /** Counts a pod no more. */
  forget(pod: bigint): void {
    this.#forget((known) => known === pod);
  }

  /** Makes room: these are all the pods that there are, by their cgroups' IDs. */
  forgetAllBut(pods: ReadonlySet<bigint>): void {
    this.#forget((known) => !pods.has(known));
  }

  /** Those that name no peer go first: without them the guard adds none. */
  #forget(isMeant: (pod: bigint) => boolean): void {
    const keys = this.map.keys().filter((key) => isMeant(decodeId(key)));
    for (const pod of new Set(keys.map(decodeId))) {
      for (const key of keysOf(pod)) this.map.delete(key);
    }
    for (const key of keys) this.map.delete(key);
  }
}

/** Of what a pod sends to peers that have no count of their own. */
function keysOf(pod: bigint): Uint8Array<ArrayBuffer>[] {
  return Object.values(PROTOCOLS).map((protocol) => {
    const key = new Uint8Array(LAYOUT.guard_key.size);
    key.set(encodeId(pod), LAYOUT.guard_key.pod);
    key.set(encodeNumber(protocol), LAYOUT.guard_key.protocol);
    return key;
  });
}

function decode(
  key: Uint8Array<ArrayBuffer>,
  value: Uint8Array<ArrayBuffer>,
  boot: number,
): GuardCount[] {
  const view = new DataView(value.buffer);
  const { guard_key: k, guard_count: v, guard_traffic: t } = LAYOUT;
  const peer = key.slice(k.peer, k.peer + LAYOUT.address.size);
  const protocol = new DataView(key.buffer).getUint32(k.protocol, true);
  return PLACES.flatMap((seen, place) => {
    const number = (offset: number) =>
      Number(view.getBigUint64(v.seen + place * t.size + offset, true));
    if (number(t.packets) === 0) return [];
    return {
      pod: decodeId(key),
      peer: peer.some((byte) => byte !== 0) ? peer : undefined,
      protocol: protocol === PROTOCOLS.tcp ? "tcp" : "udp",
      seen,
      packets: number(t.packets),
      bytes: number(t.bytes),
      payloadBytes: number(t.payload),
      droppedPackets: number(t.dropped),
      first: {
        source: decodeEndpoint(value.slice(v.source, v.source + LAYOUT.endpoint.size)),
        destination: decodeEndpoint(value.slice(v.destination)),
        atMilliseconds: wallClock(view.getBigUint64(v.first, true), boot),
      },
      lastMilliseconds: wallClock(view.getBigUint64(v.last, true), boot),
    };
  });
}
