import { logger } from "../../log.ts";
import { mustEnd } from "../rules/older_connections.ts";
import type { PodSettings } from "../rules/settings.ts";
import type { PodServing } from "./pod_kernel.ts";

const log = logger("enrolment");

/** How often connections that are older are looked for where there were none. */
const OLDER_MILLISECONDS = 60_000;

/** The connections of one pod with peers, in clear, that are older than its enrolment. */
export class OlderConnections {
  /** As last seen. */
  #seen = { count: 0, isComplete: true };
  /** By the monotonic clock, in milliseconds. */
  #next = 0;

  constructor(readonly now: () => number) {}

  get seen(): { readonly count: number; readonly isComplete: boolean } {
    return this.#seen;
  }

  /** What there was, or what may go on, is another question now. */
  lookSoon(): void {
    this.#next = 0;
  }

  /**
   * Lists them, and ends those that must not go on. Listing costs the kernel a walk through the
   * node's connections, so it is not done each time: none can be added but by a pod that becomes a
   * peer. Throws a SystemError.
   *
   * @param since when the pod was enrolled, by the monotonic clock.
   */
  look(serving: PodServing, settings: PodSettings, pod: string, since: number): void {
    if (this.#seen.count === 0 && this.now() < this.#next) return;
    const { list, isComplete, end } = serving.olderConnections();
    const seconds = (this.now() - since) / 1000;
    const ends = list.flatMap((each, index) => mustEnd(each, settings, seconds) ? index : []);
    const isDone = ends.length === 0 || end(ends);
    for (const index of ends) {
      log.info(isDone ? "ended {connection} of {pod}" : "cannot end {connection} of {pod}", {
        connection: list[index]?.name,
        pod,
        why: "it is older than the enrolment, and in clear",
      });
    }
    this.#seen = { count: isDone ? list.length - ends.length : list.length, isComplete };
    this.#next = this.now() + OLDER_MILLISECONDS * (0.5 + Math.random());
  }
}
