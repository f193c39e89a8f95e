import { logger } from "../../log.ts";
import { watchBirths } from "./cgroup_watch.ts";
import { PodCgroups } from "./pod_cgroups.ts";
import type { WantedEnrolment } from "../rules/desired.ts";
import { Enrolment, type EnrolmentServices } from "./enrolment.ts";
import { Holds } from "./holds.ts";
import type { RegistryEntry } from "../../cluster/registry.ts";

const log = logger("enrolments");

/** How soon a pod that still lacks something is looked at again; a new one changes every few milliseconds. */
const RETRY_MILLISECONDS = 200;
const NEW_RETRY_MILLISECONDS = 10;

/** How often active enrolments are held against the kernel. */
const RECHECK_MILLISECONDS = 5_000;

/** All enrolments of this node: brings them to what is wanted, one step of a pod after the other. */
export class Enrolments {
  readonly #current = new Map<string, Enrolment>();
  readonly #cgroups: PodCgroups;
  readonly #holds: Holds;
  readonly #births: { close(): void };
  #wanted: ReadonlyMap<string, WantedEnrolment> = new Map();
  #known: ReadonlySet<string> = new Set();
  /** The last step of each pod, which the next one waits for. */
  readonly #steps = new Map<string, Promise<void>>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #checked = performance.now();
  #stopped = false;
  /** Pods are held, see {@link want}. */
  #holding = false;

  constructor(
    readonly nodeName: string,
    cgroupRoot: string,
    readonly services: EnrolmentServices,
  ) {
    this.#cgroups = new PodCgroups(cgroupRoot);
    this.#holds = new Holds(cgroupRoot, services.redirector.hold);
    this.#births = watchBirths(cgroupRoot, (uid, cgroup) => this.#born(uid, cgroup));
  }

  /** Every enrolment, also those that wait or leave. */
  list(): Enrolment[] {
    return [...this.#current.values()];
  }

  /** What keeps pods from being held, if anything does. */
  problems(): readonly { readonly where: string; readonly message: string }[] {
    const { problem } = this.#holds;
    return problem === undefined ? [] : [{ where: this.#holds.cgroupRoot, message: problem }];
  }

  /** What the registry should say of this node. */
  entries(): RegistryEntry[] {
    return this.list().filter(({ state }) => state === "active").map(({ wanted, addresses }) => ({
      uid: wanted.uid,
      namespace: wanted.namespace,
      name: wanted.name,
      identity: wanted.identity,
      node: this.nodeName,
      addresses,
      ready: true,
    }));
  }

  /**
   * Takes over what is wanted. `known`: the UIDs of all local pods. While `complete` is false, both may lack some:
   * none leaves. From now on every pod is held but those that are known and not wanted; those that are enrolled
   * decide for themselves.
   */
  want(
    wanted: ReadonlyMap<string, WantedEnrolment>,
    known: ReadonlySet<string>,
    complete: boolean,
  ): void {
    this.#wanted = complete ? wanted : new Map([...this.#wanted, ...wanted]);
    this.#known = known;
    if (this.#holding) return this.#letGo(this.#cgroups.known);
    this.#letGo(this.#cgroups.all());
    this.#holds.begin();
    this.#holding = true;
  }

  /** Starts to bring about what is wanted; resolves when every pod was tried once. */
  async reconcile(): Promise<void> {
    for (const enrolment of this.list()) {
      const now = this.#wanted.get(enrolment.wanted.uid);
      if (now !== undefined) enrolment.adjust(now.settings);
    }
    await this.#advance();
  }

  /** The trust bundle has changed. */
  trust(roots: Uint8Array[]): void {
    for (const enrolment of this.#current.values()) enrolment.trust(roots);
  }

  /** Begins nothing more; every pod stays as it is. */
  pause(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#births.close();
  }

  /** Leaves with every pod at once. */
  async stop(): Promise<void> {
    this.pause();
    this.#wanted = new Map();
    this.#holds.end();
    await Promise.all(
      this.list().map(({ wanted: { uid } }) =>
        this.#step(uid, (enrolment) => enrolment?.leave(false))
      ),
    );
  }

  /** A pod's cgroup was made, and nothing runs in it yet. */
  #born(uid: string, cgroup: string): void {
    if (this.#stopped) return;
    this.#cgroups.born(uid, cgroup);
    if (this.#holding) this.#holds.born(cgroup);
    const wanted = [...this.#wanted.values()].find(({ cgroupUids }) => cgroupUids.includes(uid));
    if (wanted !== undefined) {
      this.#current.get(wanted.uid)?.born(cgroup);
      void this.#advance().catch(logged);
    } else if (this.#known.has(uid)) {
      this.#holds.letGo(cgroup);
    }
  }

  #letGo(cgroups: ReadonlyMap<string, string>): void {
    const wanted = new Set([...this.#wanted.values()].flatMap(({ cgroupUids }) => cgroupUids));
    for (const [uid, cgroup] of cgroups) {
      if (this.#known.has(uid) && !wanted.has(uid)) this.#holds.letGo(cgroup);
    }
  }

  async #advance(): Promise<void> {
    clearTimeout(this.#timer);
    try {
      await this.#takeSteps();
    } finally {
      this.#lookAgain();
    }
  }

  async #takeSteps(): Promise<void> {
    const recheck = performance.now() - this.#checked >= RECHECK_MILLISECONDS;
    if (recheck) this.#checked = performance.now();
    for (const enrolment of this.list()) {
      if (!this.#mustLeave(enrolment, recheck)) continue;
      // Leaving may take its time to drain, and nobody has to wait for that.
      void this.#step(enrolment.wanted.uid, (current) => this.#leave(current)).then(() =>
        this.#lookAgain()
      );
    }
    for (const [uid, wanted] of this.#wanted) {
      if (!this.#current.has(uid)) this.#current.set(uid, new Enrolment(wanted, this.services));
    }
    if (recheck) this.#lookAtCgroups();
    const steps: Promise<void>[] = [];
    for (const { state, wanted: { uid, cgroupUids } } of this.list()) {
      if (state !== "waiting") continue;
      const cgroup = this.#cgroups.find(cgroupUids);
      steps.push(this.#step(uid, (enrolment) => enrolment?.enrol(cgroup)));
      // One pod's certificate is asked for while the next one's listeners are opened.
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    await Promise.all(steps);
  }

  /** What inotify has not told, and what is no more. */
  #lookAtCgroups(): void {
    const cgroups = this.#cgroups.all();
    this.#holds.prune([...cgroups.values()]);
    this.#letGo(cgroups);
  }

  #lookAgain(): void {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    const settled = this.list().every((enrolment) =>
      enrolment.state === "active" && !this.#mustLeave(enrolment, false)
    );
    const young = this.list().some(({ state, isNew }) => isNew && state === "waiting");
    const milliseconds = young
      ? NEW_RETRY_MILLISECONDS
      : settled && this.#current.size === this.#wanted.size
      ? RECHECK_MILLISECONDS
      : RETRY_MILLISECONDS;
    this.#timer = setTimeout(() => this.#advance().catch(logged), milliseconds);
  }

  #mustLeave(enrolment: Enrolment, recheck: boolean): boolean {
    if (enrolment.state !== "active" && enrolment.state !== "waiting") return false;
    const wanted = this.#wanted.get(enrolment.wanted.uid);
    if (wanted === undefined || !enrolment.satisfies(wanted)) return true;
    return recheck && enrolment.state === "active" && !isCurrent(enrolment);
  }

  async #leave(enrolment: Enrolment | undefined): Promise<void> {
    if (enrolment === undefined) return;
    const { uid } = enrolment.wanted;
    if (this.#wanted.has(uid)) {
      await enrolment.giveWay();
      // Nobody is there to detach the programs when it is wanted no more by now.
      if (!this.#wanted.has(uid)) this.services.redirector.detach(uid);
    } else {
      await enrolment.leave(isCurrent(enrolment));
    }
    this.#current.delete(uid);
  }

  /** One pod's steps run one after the other; a step that fails is logged and does not stop the next. */
  #step(
    uid: string,
    action: (enrolment: Enrolment | undefined) => Promise<void> | undefined,
  ): Promise<void> {
    const next = (this.#steps.get(uid) ?? Promise.resolve())
      .then(() => action(this.#current.get(uid)))
      .catch((error) => log.error("{uid}: {error}", { uid, error: String(error) }))
      .finally(() => {
        if (this.#steps.get(uid) === next) this.#steps.delete(uid);
      });
    this.#steps.set(uid, next);
    return next;
  }
}

/** A node that is out of descriptors cannot tell, which is no reason to take a pod's encryption away. */
function isCurrent(enrolment: Enrolment): boolean {
  try {
    return enrolment.isCurrent();
  } catch (error) {
    log.warn("cannot look after {pod}: {error}", { pod: enrolment.name, error: String(error) });
    return true;
  }
}

function logged(error: unknown): void {
  log.error("{error}", { error: String(error) });
}
