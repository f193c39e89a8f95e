import type { BpfMap } from "../native/bpf_map.ts";
import type { Endpoint } from "../native/socket_address.ts";
import { bootTime, wallClock } from "./boot_time.ts";
import { decodeEndpoint, decodeId, LAYOUT } from "./maps.ts";

/**
 * Why the kernel refused a connection, or would have, by its number (bpf/maps.h, enum
 * refusal_reason).
 */
export const REFUSAL_REASONS = {
  1: "undecided",
  2: "namespace",
  3: "socket",
  4: "egress",
  5: "range",
  6: "inbound",
  7: "egress_dry_run",
  8: "inbound_dry_run",
} as const;

export type RefusalReason = (typeof REFUSAL_REASONS)[keyof typeof REFUSAL_REASONS];

/** The connections that were refused to a pod for one reason. */
export interface KernelRefusal {
  /** Of the pod; 0 for all pods together that the agent has not decided on. */
  readonly cgroup: bigint;
  readonly reason: RefusalReason;
  readonly count: number;
  /**
   * The last one: the network namespace of its socket, the process's ID as the node sees it, and
   * where it was to go. Of "inbound", which no process of the pod asked for, only where the answer
   * was to go.
   */
  readonly last: {
    readonly namespaceCookie: bigint;
    readonly process: number;
    readonly destination: Endpoint;
    /** Wall clock. */
    readonly atMilliseconds: number;
  };
}

/** The connections that the programs have refused, by pod and reason, as the kernel counts them. */
export class KernelRefusals {
  constructor(readonly map: BpfMap) {}

  all(): KernelRefusal[] {
    const boot = bootTime();
    return [...this.map.entries()].flatMap(({ key, value }) => decode(key, value, boot) ?? []);
  }

  /** Makes room: forgets the pods that are not there any more, by their cgroups' IDs. */
  forgetAllBut(isPresent: (cgroup: bigint) => boolean): void {
    for (const key of this.map.keys()) {
      const cgroup = decodeId(key);
      if (cgroup !== UNDECIDED && !isPresent(cgroup)) this.map.delete(key);
    }
  }
}

/** In the place of a pod's cgroup. */
const UNDECIDED = 0n;

function decode(
  key: Uint8Array<ArrayBuffer>,
  value: Uint8Array<ArrayBuffer>,
  boot: number,
): KernelRefusal | undefined {
  const code = new DataView(key.buffer).getUint32(LAYOUT.refusal_key.reason, true);
  const reason = REFUSAL_REASONS[code as keyof typeof REFUSAL_REASONS];
  if (reason === undefined) return undefined; // a later version's
  const view = new DataView(value.buffer);
  return {
    cgroup: decodeId(key),
    reason,
    count: Number(view.getBigUint64(LAYOUT.refusals.count, true)),
    last: {
      namespaceCookie: view.getBigUint64(LAYOUT.refusals.netns_cookie, true),
      process: view.getUint32(LAYOUT.refusals.process, true),
      destination: decodeEndpoint(value.slice(LAYOUT.refusals.destination)),
      atMilliseconds: wallClock(view.getBigUint64(LAYOUT.refusals.at, true), boot),
    },
  };
}
