import { errorText } from "../../error_text.ts";
import type { Fault } from "../../kernel/fault.ts";
import type { Hold } from "../../kernel/hold.ts";
import { logger } from "../../log.ts";

const log = logger("holds");

/** What is asked of the programs above all pods. */
export type Holding = Pick<Hold, "below" | "forgetAllBut" | "inspect" | "letGo">;

/**
 * Which of the node's pods are held: those of which nothing has been decided. Such a pod may turn
 * out to be annotated, and must not have sent a byte in clear by then; peers are refused to it
 * meanwhile, everything else works.
 */
export class Holds {
  #below: readonly string[] = [];
  /** The cgroups of the pods that were let go, each named once. */
  readonly #free = new Set<string>();

  /**
   * Why new pods are not held, if they are not: an annotated one may send in clear until it is
   * enrolled.
   */
  problem: string | undefined;

  constructor(readonly cgroupRoot: string, readonly hold: Holding) {}

  /** Holds below these cgroups, which are all that kubelet keeps pods in. */
  begin(tops: readonly string[]): void {
    this.#below = tops;
    try {
      if (tops.length === 0) throw new Error(`no kubepods of root's below ${this.cgroupRoot}`);
      this.hold.below(tops);
      this.problem = undefined;
    } catch (error) {
      const problem = `new pods are not held until they are enrolled: ${error}`;
      if (problem !== this.problem) log.error("{problem}", { problem });
      this.problem = problem;
    }
  }

  /** A pod's cgroup was made, perhaps under the name of one that was there before. */
  born(cgroup: string, tops: readonly string[]): void {
    this.#free.delete(cgroup);
    if (!this.#covers(cgroup)) this.begin(tops);
  }

  /** This pod is not to be enrolled. */
  letGo(cgroup: string): void {
    if (this.#free.has(cgroup)) return;
    try {
      this.hold.letGo(cgroup);
      this.#free.add(cgroup);
    } catch (error) {
      // Usually gone again already: the cgroup of a pod that has ended.
      log.debug("cannot let go of {cgroup}: {error}", { cgroup, error: errorText(error) });
    }
  }

  /**
   * Forgets the pods that are no more: these are all there are. Those that are free are to be named
   * again.
   */
  prune(cgroups: readonly string[], tops: readonly string[]): void {
    this.#free.clear();
    this.hold.forgetAllBut(cgroups);
    if (this.problem !== undefined || tops.join() !== this.#below.join()) this.begin(tops);
  }

  /** What does not hold as {@link begin} has said, now that it is mended. Throws a SystemError. */
  inspect(): Fault[] {
    const faults = this.hold.inspect(this.#below);
    if (faults.length > 0) this.hold.below(this.#below);
    return faults;
  }

  end(): void {
    this.hold.below([]);
  }

  #covers(cgroup: string): boolean {
    return this.#below.some((above) => cgroup.startsWith(`${above}/`));
  }
}
