import { existsSync } from "node:fs";
import { logger } from "../../log.ts";
import { findKubepods, findPodCgroups, isPodCgroup, type Kubepods, podUidOf } from "./kubepods.ts";

const log = logger("cgroups");

/** Looking through all of kubelet's cgroups is not for every few milliseconds. */
const LOOK_MILLISECONDS = 200;

/**
 * Where the pods' cgroups are: told by the kernel when they are made, found by looking otherwise.
 */
export class PodCgroups {
  #kubepods: Kubepods = { tops: [], parents: [] };
  #found = new Map<string, string>();
  #looked = -Infinity;
  readonly #watch: Watch;
  /** By UID: the cgroups that claim a pod that another one has already. */
  readonly #rivals = new Map<string, readonly string[]>();

  /**
   * @param born is called for each pod's cgroup when it is made, before anything runs in it.
   * @param owner whose kubelet's cgroups are; another one only in tests.
   */
  constructor(
    readonly root: string,
    born: (uid: string, cgroup: string) => void,
    readonly owner = 0,
  ) {
    this.#watch = new Watch((cgroup) => {
      if (this.#kubepods.tops.some((top) => cgroup.startsWith(`${top}/`))) this.#lookAtParents();
      const uid = podUidOf(cgroup);
      if (uid === undefined || !isPodCgroup(cgroup, this.#kubepods, owner)) return;
      if (this.#keeps(uid, cgroup)) born(uid, cgroup);
    });
  }

  /** The cgroups that kubelet keeps all pods in. */
  get tops(): readonly string[] {
    return this.#kubepods.tops;
  }

  /** Those that are known, of which some may be gone and new ones missing, without a look. */
  get known(): ReadonlyMap<string, string> {
    return this.#found;
  }

  /** Why pods' cgroups may be missed, or whose they are is in doubt. */
  get problems(): readonly string[] {
    return [
      ...(this.#watch.problem === undefined ? [] : [this.#watch.problem]),
      ...[...this.#rivals].map(([uid, cgroups]) =>
        `several cgroups have the name of pod ${uid}: ${
          this.#found.get(uid)
        } is taken for it, not ` +
        cgroups.join(", ")
      ),
    ];
  }

  /** Looks for all that there are now, by UID. */
  look(): ReadonlyMap<string, string> {
    this.#looked = performance.now();
    this.#kubepods = findKubepods(this.root, this.owner);
    this.#watch.follow(this.#kubepods.parents);
    this.#rivals.clear();
    const found = new Map<string, string>();
    for (const [uid, cgroups] of findPodCgroups(this.#kubepods, this.owner)) {
      // The one that is known stays: a second one that comes later must not take its place.
      const known = this.#found.get(uid);
      const cgroup = known !== undefined && cgroups.includes(known) ? known : cgroups[0];
      if (cgroup !== undefined) found.set(uid, cgroup);
      const rivals = cgroups.filter((each) => each !== cgroup);
      if (rivals.length > 0) this.#rivals.set(uid, rivals);
    }
    return this.#found = found;
  }

  /** The cgroup of the pod with this UID, if it has one. */
  find(uid: string): string | undefined {
    const known = this.#lookUp(uid);
    if (known !== undefined || performance.now() - this.#looked < LOOK_MILLISECONDS) return known;
    this.look();
    return this.#lookUp(uid);
  }

  close(): void {
    this.#watch.close();
  }

  #lookUp(uid: string): string | undefined {
    const cgroup = this.#found.get(uid);
    return cgroup !== undefined && existsSync(cgroup) ? cgroup : undefined;
  }

  /** Notes a pod's new cgroup, unless the pod has one: then this one is a rival. */
  #keeps(uid: string, cgroup: string): boolean {
    const known = this.#found.get(uid);
    if (known !== undefined && known !== cgroup && existsSync(known)) {
      this.#rivals.set(uid, [cgroup]);
      log.warn("{cgroup} has the name of pod {uid}, which has {known} already: it is left alone", {
        cgroup,
        uid,
        known,
      });
      return false;
    }
    this.#found.set(uid, cgroup);
    return true;
  }

  /** The cgroup of a QoS class may have been made. */
  #lookAtParents(): void {
    const { parents } = findKubepods(this.root, this.owner);
    if (parents.join() === this.#kubepods.parents.join()) return;
    this.look();
  }
}

/**
 * Reports the directories that are made right below some others: cgroupfs reports a mkdir through
 * inotify within a millisecond. Not below the pods' own cgroups, where tenants may make as many as
 * they like.
 */
class Watch {
  #watcher: Deno.FsWatcher | undefined;
  #parents = "";
  /** Why nothing is reported now. */
  problem: string | undefined;

  constructor(readonly made: (path: string) => void) {}

  /**
   * Follows these directories from now on. What cannot be followed is tried again at the next call.
   */
  follow(parents: readonly string[]): void {
    const text = parents.join("\n");
    if (text === this.#parents && this.problem === undefined) return;
    const before = this.#watcher;
    this.#parents = text;
    try {
      this.#watcher = parents.length === 0
        ? undefined
        : Deno.watchFs([...parents], { recursive: false });
      this.#failed(undefined);
    } catch (error) {
      // Root's inotify instances may be used up (fs.inotify.max_user_instances), also by
      // containers' uid 0.
      this.#watcher = undefined;
      this.#failed(`new pods are found by looking only, since inotify fails: ${error}`);
    }
    before?.close(); // what was made meanwhile is reported twice rather than never
    if (this.#watcher !== undefined) void this.#report(this.#watcher);
  }

  close(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
  }

  async #report(watcher: Deno.FsWatcher): Promise<void> {
    try {
      for await (const { kind, paths } of watcher) {
        if (kind !== "create") continue;
        for (const path of paths) this.made(path);
      }
    } catch (error) {
      if (watcher === this.#watcher) this.#failed(`new pods are found by looking only: ${error}`);
    }
  }

  #failed(problem: string | undefined): void {
    if (problem !== undefined && problem !== this.problem) log.error("{problem}", { problem });
    this.problem = problem;
  }
}
