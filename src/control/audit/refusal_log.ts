import { formatAddress } from "../../addresses.ts";
import type { KernelRefusal, RefusalReason } from "../../kernel/refusals.ts";
import { logger } from "../../log.ts";

const log = logger("refused");

/** What the kernel has refused to a pod, by reason. */
export type RefusalCounts = Partial<Record<RefusalReason, number>>;

/**
 * Says what the kernel has refused since the last look: to the process that connects it says no more than "connection
 * refused". One line for each pod and reason, however many there were.
 */
export class RefusalLog {
  #counts: ReadonlyMap<string, number> = new Map();

  /** @param nameOf the pod that has a cgroup's ID; undefined: none that is enrolled. */
  look(refusals: readonly KernelRefusal[], nameOf: (cgroup: bigint) => string | undefined): void {
    const counts = new Map<string, number>();
    for (const { cgroup, reason, count, last } of refusals) {
      const key = `${cgroup} ${reason}`;
      counts.set(key, count);
      const pod = nameOf(cgroup);
      // What is not decided on yet is about to be, and says so itself.
      const news = count - (this.#counts.get(key) ?? 0);
      if (pod === undefined || news <= 0) continue;
      log.warn("{count} connections of {pod} were refused in the kernel: {why}", {
        count: news,
        pod,
        why: REASONS[reason],
        destination: `${formatAddress(last.destination.address)} port ${last.destination.port}`,
        process: last.process,
      });
    }
    this.#counts = counts;
  }
}

/** What one pod was refused. */
export function refusalsOf(
  refusals: readonly KernelRefusal[],
  cgroup: bigint | undefined,
): RefusalCounts {
  const own = refusals.filter((each) => each.cgroup === cgroup);
  return Object.fromEntries(own.map(({ reason, count }) => [reason, count]));
}

const REASONS: Record<RefusalReason, string> = {
  undecided: "its agent had not decided on the pod yet",
  namespace: "the pod is not served yet, or the process is in a network namespace of its own",
  socket: "the kernel had no memory to note what was dialled",
  egress: "egress is strict, and it would have gone in clear",
  range: "it is not known whether there is a peer, see the problems in status",
  inbound: "inbound is strict, and it had met no tunnel",
};
