import { errorText } from "../../error_text.ts";
import { logger } from "../../log.ts";
import { clockMilliseconds } from "../../native/clock.ts";
import type { WantedEnrolment } from "../rules/desired.ts";
import { Enrolment, type EnrolmentServices } from "./enrolment.ts";
import type { Finding } from "./inspection.ts";
import { type Holding, Holds } from "./holds.ts";
import { PodCgroups } from "./pod_cgroups.ts";
import { Rests } from "./rests.ts";

const log = logger("enrolments");

/**
 * How soon a pod that still lacks something is looked at again; a new one changes every few
 * milliseconds.
 */
const RETRY_MILLISECONDS = 200;
const NEW_RETRY_MILLISECONDS = 20;

/**
 * How soon all are looked at that lack nothing: is the pod where it was, is its certificate good?
 */
const LOOK_MILLISECONDS = 1_000;

/** How often the cgroups are looked through for what inotify has not told. */
const CGROUPS_MILLISECONDS = 5_000;

/**
 * All enrolments of this node: brings them to what is wanted, one step of a pod after the other.
 */
export class Enrolments {
  readonly #current = new Map<string, Enrolment>();
  readonly #cgroups: PodCgroups;
  readonly #holds: Holds;
  #wanted: ReadonlyMap<string, WantedEnrolment> = new Map();
  #known: ReadonlySet<string> = new Set();
  readonly #rests: Rests;
  /** The pods for which a step is under way. */
  readonly #stepping = new Set<string>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #looked = { cgroups: performance.now(), pods: performance.now() };
  #stopped = false;
  /** Pods are held, see {@link want}. */
  #holding = false;

  /** @param owner whose kubelet's cgroups are; another one only in tests. */
  constructor(
    cgroupRoot: string,
    hold: Holding,
    readonly services: EnrolmentServices,
    owner = 0,
  ) {
    this.#cgroups = new PodCgroups(cgroupRoot, (uid, cgroup) => this.#born(uid, cgroup), owner);
    this.#holds = new Holds(cgroupRoot, hold);
    this.#rests = new Rests(services.now, () => clockMilliseconds("thread"));
  }

  /** Every enrolment, also those that wait or leave. */
  list(): Enrolment[] {
    return [...this.#current.values()];
  }

  get(uid: string): Enrolment | undefined {
    return this.#current.get(uid);
  }

  /** What keeps pods from being held or found, if anything does. */
  problems(): readonly { readonly where: string; readonly message: string }[] {
    const { problem } = this.#holds;
    return [...(problem === undefined ? [] : [problem]), ...this.#cgroups.problems]
      .map((message) => ({ where: this.#cgroups.root, message }));
  }

  /**
   * Compares what is above all pods with what should be there, and puts it right. Throws when that
   * fails.
   */
  inspectHolds(): Finding[] {
    return this.#holding ? this.#holds.inspect() : [];
  }

  /**
   * Takes over what is wanted. `known`: the UIDs of all local pods. While `complete` is false, both
   * may lack some: none leaves. From now on every pod is held but those that are known and not
   * wanted; those that are enrolled decide for themselves.
   */
  want(
    wanted: ReadonlyMap<string, WantedEnrolment>,
    known: ReadonlySet<string>,
    complete: boolean,
  ): void {
    this.#wanted = complete ? wanted : new Map([...this.#wanted, ...wanted]);
    this.#known = known;
    for (const enrolment of this.list()) {
      enrolment.want(this.#wanted.get(enrolment.wanted.uid));
    }
    for (const [uid, each] of this.#wanted) {
      if (!this.#current.has(uid)) this.#current.set(uid, new Enrolment(each, this.services));
    }
    if (this.#holding) return this.#letGo(this.#cgroups.known);
    this.#letGo(this.#cgroups.look());
    this.#holds.begin(this.#cgroups.tops);
    this.#holding = true;
  }

  /** Takes the next step of every pod; resolves when each has been tried. */
  async reconcile(): Promise<void> {
    if (this.#stopped) return;
    clearTimeout(this.#timer);
    try {
      const now = performance.now();
      if (now - this.#looked.cgroups >= CGROUPS_MILLISECONDS) this.#lookAtCgroups();
      const isTime = now - this.#looked.pods >= LOOK_MILLISECONDS;
      if (isTime) this.#looked.pods = now;
      const steps: Promise<void>[] = [];
      for (const enrolment of this.list()) {
        if (enrolment.isSettled && !isTime || this.#isResting(enrolment)) continue;
        steps.push(this.#step(enrolment));
        // One pod's certificate is asked for while the next one's listeners are opened.
        if (enrolment.state === "enrolling") await new Promise((resolve) => setTimeout(resolve, 0));
      }
      this.#lookAgain();
      await Promise.all(steps);
    } finally {
      this.#lookAgain();
    }
  }

  /** The trust bundle has changed. */
  trust(roots: Uint8Array[]): void {
    for (const enrolment of this.#current.values()) enrolment.trust(roots);
  }

  /** Begins nothing more; every pod stays as it is. */
  pause(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#cgroups.close();
  }

  /**
   * Leaves with every pod at once. Whatever fails for one is logged, and does not keep the others.
   */
  async stop(): Promise<void> {
    this.pause();
    this.#wanted = new Map();
    this.#holds.end();
    await Promise.all(
      this.list().map((enrolment) =>
        enrolment.leaveNow().catch((error) => failed(enrolment, error))
      ),
    );
  }

  /** A pod's cgroup was made, and nothing runs in it yet. */
  #born(uid: string, cgroup: string): void {
    if (this.#stopped) return;
    if (this.#holding) this.#holds.born(cgroup, this.#cgroups.tops);
    if (this.#wanted.has(uid)) {
      this.#current.get(uid)?.born(cgroup);
      void this.reconcile().catch(logged);
    } else if (this.#known.has(uid)) {
      this.#holds.letGo(cgroup);
    }
  }

  #letGo(cgroups: ReadonlyMap<string, string>): void {
    for (const [uid, cgroup] of cgroups) {
      if (this.#known.has(uid) && !this.#wanted.has(uid)) this.#holds.letGo(cgroup);
    }
  }

  /** What inotify has not told, and what is no more. */
  #lookAtCgroups(): void {
    this.#looked.cgroups = performance.now();
    const cgroups = this.#cgroups.look();
    if (!this.#holding) return;
    this.#holds.prune([...cgroups.values()], this.#cgroups.tops);
    this.#letGo(cgroups);
  }

  #lookAgain(): void {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    const young = this.list().some(({ state, isNew }) => isNew && state === "waiting");
    const settled = this.list().every(({ isSettled }) => isSettled);
    const milliseconds = young
      ? NEW_RETRY_MILLISECONDS
      : settled
      ? LOOK_MILLISECONDS
      : RETRY_MILLISECONDS;
    this.#timer = setTimeout(() => this.reconcile().catch(logged), milliseconds);
  }

  /** Whoever leaves, or is served, does not wait for that. */
  #isResting({ wanted, isWanted, state }: Enrolment): boolean {
    return state === "waiting" && isWanted && this.#rests.isResting(wanted.uid);
  }

  /** One step of a pod at a time; a step that fails is logged, and tried again. */
  async #step(enrolment: Enrolment): Promise<void> {
    const { uid } = enrolment.wanted;
    if (this.#stepping.has(uid)) return;
    this.#stepping.add(uid);
    try {
      await this.#rests.measure(uid, () => enrolment.step(() => this.#cgroups.find(uid)));
    } catch (error) {
      failed(enrolment, error);
    } finally {
      this.#stepping.delete(uid);
    }
    if (enrolment.state !== "gone") return;
    this.#current.delete(uid);
    this.#rests.forget(uid);
    const wanted = this.#wanted.get(uid);
    if (wanted !== undefined) this.#current.set(uid, new Enrolment(wanted, this.services));
  }
}

function failed({ name }: Enrolment, error: unknown): void {
  log.error("a step of {pod} failed and is tried again: {error}", {
    pod: name,
    error: errorText(error),
  });
}

function logged(error: unknown): void {
  log.error("{error}", { error: errorText(error) });
}
