import type { BpfMap } from "../native/bpf_map.ts";
import type { Endpoint } from "../native/socket_address.ts";
import { bootTime, wallClock } from "./boot_time.ts";
import { decodeEndpoint, decodeId, encodeId, LAYOUT } from "./maps.ts";

/** In the place of a pod, with an address of zeros: all that the map had no room for. */
export const OTHER_PODS = 2n ** 64n - 1n;

/** What one pod has sent to one peer outside the tunnel. */
export interface GuardCount {
  /** Its cgroup's ID, or {@link OTHER_PODS}. */
  readonly pod: bigint;
  /** 16 bytes. */
  readonly peer: Uint8Array;
  readonly protocol: "tcp" | "udp";
  /** By whom it was seen: the guard of the pod's cgroup or that of its device. Both may have seen the same. */
  readonly seen: "cgroup" | "device";
  /** As the kernel hands them on: one may be 64 KiB. */
  readonly packets: number;
  /** From the IP header on. */
  readonly bytes: number;
  /** Behind the TCP or UDP header: what opens, acknowledges or ends a connection has none. */
  readonly payloadBytes: number;
  /** How many of the packets went no further. */
  readonly droppedPackets: number;
  readonly first: {
    readonly source: Endpoint;
    readonly destination: Endpoint;
    /** Wall clock. */
    readonly atMilliseconds: number;
  };
  readonly lastMilliseconds: number;
}

const TCP = 6;

/** What went to peers outside the tunnel since the maps were made, or since the pod was forgotten. */
export class GuardCounts {
  /** A count for what finds no room is there from the start: else there would be none for it either. */
  constructor(readonly map: BpfMap) {
    const key = new Uint8Array(map.keySize);
    key.set(encodeId(OTHER_PODS), LAYOUT.guard_key.pod);
    map.add(key, new Uint8Array(map.valueSize));
  }

  /** Those with a packet at least. */
  all(): GuardCount[] {
    const boot = bootTime();
    return [...this.map.entries()].flatMap(({ key, value }) => {
      const count = decode(key, value, boot);
      return count !== undefined && count.packets > 0 ? count : [];
    });
  }

  /** Begins to count anew for a pod, by its cgroup's ID: it is enrolled from now on. */
  forget(pod: bigint): void {
    this.#forget((known) => known === pod);
  }

  /** Makes room: these are all the pods that there are, by their cgroups' IDs. */
  forgetAllBut(pods: ReadonlySet<bigint>): void {
    this.#forget((known) => !pods.has(known));
  }

  #forget(isMeant: (pod: bigint) => boolean): void {
    for (const key of this.map.keys()) {
      const pod = decodeId(key);
      if (pod !== OTHER_PODS && isMeant(pod)) this.map.delete(key);
    }
  }
}

function decode(
  key: Uint8Array<ArrayBuffer>,
  value: Uint8Array<ArrayBuffer>,
  boot: number,
): GuardCount {
  const keyView = new DataView(key.buffer);
  const view = new DataView(value.buffer);
  const number = (offset: number) => Number(view.getBigUint64(offset, true));
  const { guard_key: k, guard_count: v } = LAYOUT;
  return {
    pod: decodeId(key),
    peer: key.slice(k.peer, k.peer + LAYOUT.address.size),
    protocol: keyView.getUint32(k.protocol, true) === TCP ? "tcp" : "udp",
    seen: keyView.getUint32(k.device, true) === 0 ? "cgroup" : "device",
    packets: number(v.packets),
    bytes: number(v.bytes),
    payloadBytes: number(v.payload),
    droppedPackets: number(v.dropped),
    first: {
      source: decodeEndpoint(value.slice(v.source, v.source + LAYOUT.endpoint.size)),
      destination: decodeEndpoint(value.slice(v.destination)),
      atMilliseconds: wallClock(view.getBigUint64(v.first, true), boot),
    },
    lastMilliseconds: wallClock(view.getBigUint64(v.last, true), boot),
  };
}
