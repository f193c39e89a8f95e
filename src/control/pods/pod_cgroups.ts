import { existsSync } from "node:fs";
import { findPodCgroups } from "./cgroup.ts";

/** A walk through all cgroups is not for every few milliseconds. */
const WALK_MILLISECONDS = 200;

/** Where the pods' cgroups are: told at birth, found by looking otherwise. */
export class PodCgroups {
  #found = new Map<string, string>();
  #walked = -Infinity;

  constructor(readonly root: string) {}

  born(uid: string, cgroup: string): void {
    this.#found.set(uid, cgroup);
  }

  /** All that there are, by UID. */
  all(): ReadonlyMap<string, string> {
    this.#walked = performance.now();
    return this.#found = findPodCgroups(this.root);
  }

  /** Those that are known, of which some may be gone and new ones missing, without a look. */
  get known(): ReadonlyMap<string, string> {
    return this.#found;
  }

  /** The cgroup of the first of these UIDs that has one. */
  find(uids: readonly string[]): string | undefined {
    return this.#lookUp(uids) ?? (this.#walk() ? this.#lookUp(uids) : undefined);
  }

  #lookUp(uids: readonly string[]): string | undefined {
    for (const uid of uids) {
      const cgroup = this.#found.get(uid);
      if (cgroup !== undefined && existsSync(cgroup)) return cgroup;
    }
    return undefined;
  }

  #walk(): boolean {
    const now = performance.now();
    if (now - this.#walked < WALK_MILLISECONDS) return false;
    this.all();
    return true;
  }
}
