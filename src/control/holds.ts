import { existsSync } from "node:fs";
import type { Redirector } from "../kernel/redirector.ts";
import { logger } from "../log.ts";

const log = logger("holds");

/**
 * New pods whose objects have not been seen yet. Each is held, so that a pod that turns out to be annotated has
 * not sent a byte in clear; peers are refused to it meanwhile, everything else works.
 */
export class Holds {
  readonly #held = new Map<string, string>();

  constructor(readonly redirector: Redirector) {}

  /** @param strictEgress what its annotations say, as far as they are known. */
  hold(uid: string, cgroup: string, strictEgress: boolean): void {
    try {
      this.redirector.attach(uid, cgroup, strictEgress);
      this.#held.set(uid, cgroup);
    } catch (error) {
      // Usually gone again already: the cgroup of a pod that failed to start.
      log.warn("cannot hold {uid}: {error}", { uid, error: String(error) });
    }
  }

  /** An enrolment has attached its own programs to these. */
  takenOver(uids: readonly string[], enrolled: string): void {
    for (const uid of uids) {
      if (this.#held.delete(uid) && uid !== enrolled) this.redirector.detach(uid);
    }
  }

  /** Lets go of the pods that are known by now and not wanted, and of those that are no more. */
  release(known: ReadonlySet<string>, wanted: ReadonlySet<string>): void {
    for (const [uid, cgroup] of this.#held) {
      const decided = known.has(uid) && !wanted.has(uid);
      if (!decided && existsSync(cgroup)) continue;
      this.#held.delete(uid);
      this.redirector.detach(uid);
    }
  }

  releaseAll(): void {
    for (const uid of this.#held.keys()) this.redirector.detach(uid);
    this.#held.clear();
  }
}
