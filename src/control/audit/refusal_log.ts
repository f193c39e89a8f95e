import { formatAddress } from "../../addresses.ts";
import type { KernelRefusal, RefusalReason } from "../../kernel/refusals.ts";
import { logger } from "../../log.ts";

const log = logger("refused");

/** What the kernel has refused to a pod, by reason. */
export type RefusalCounts = Partial<Record<RefusalReason, number>>;

/**
 * Says what the kernel has refused since the last look: to the process that connects it says no
 * more than "connection refused". One line for each pod and reason, however many there were.
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
      const what = isDryRun(reason) ? "would have been refused" : "were refused in the kernel";
      log.warn(`{count} connections of {pod} ${what}: {why}`, {
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

/** What one pod was refused, and what it would have been. */
export function refusalsOf(
  refusals: readonly KernelRefusal[],
  cgroup: bigint | undefined,
): { readonly refusedInKernel: RefusalCounts; readonly wouldRefuseInKernel: RefusalCounts } {
  const own = refusals.filter((each) => each.cgroup === cgroup);
  const counts = (dryRun: boolean): RefusalCounts =>
    Object.fromEntries(
      own.filter(({ reason }) => isDryRun(reason) === dryRun)
        .map(({ reason, count }) => [reason, count]),
    );
  return { refusedInKernel: counts(false), wouldRefuseInKernel: counts(true) };
}

/** Whether nothing was refused: only counted. */
export function isDryRun(reason: RefusalReason): boolean {
  return reason === "egress_dry_run" || reason === "inbound_dry_run";
}

const REASONS: Record<RefusalReason, string> = {
  undecided: "its agent had not decided on the pod yet",
  namespace: "the pod is not served yet, or the process is in a network namespace of its own",
  socket: "the kernel had no memory to note what was dialled",
  egress: "egress is strict, and it would have gone in clear",
  range: "it is not known whether there is a peer, see the problems in status",
  inbound: "inbound is strict, and it had met no tunnel",
  egress_dry_run: "egress is a dry run, and it went in clear",
  inbound_dry_run: "inbound is a dry run, and it had met no tunnel",
};
