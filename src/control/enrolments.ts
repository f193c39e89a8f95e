import { logger } from "../log.ts";
import { findPodCgroups } from "./cgroup.ts";
import type { WantedEnrolment } from "./desired.ts";
import { Enrolment, type EnrolmentServices } from "./enrolment.ts";
import type { RegistryEntry } from "./registry.ts";

const log = logger("enrolments");

/** How soon a pod that still lacks something is looked at again. */
const RETRY_MILLISECONDS = 200;

/** How often active enrolments are held against the kernel. */
const RECHECK_MILLISECONDS = 5_000;

/** All enrolments of this node: brings them to what is wanted, one step of a pod after the other. */
export class Enrolments {
  readonly #current = new Map<string, Enrolment>();
  #wanted: ReadonlyMap<string, WantedEnrolment> = new Map();
  /** The last step of each pod, which the next one waits for. */
  readonly #steps = new Map<string, Promise<void>>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #checked = performance.now();
  #stopped = false;

  constructor(
    readonly nodeName: string,
    readonly cgroupRoot: string,
    readonly services: EnrolmentServices,
  ) {}

  /** Every enrolment, also those that wait or leave. */
  list(): Enrolment[] {
    return [...this.#current.values()];
  }

  /** What the registry should say of this node. */
  entries(): RegistryEntry[] {
    return this.list().filter(({ state }) => state === "active").map(({ wanted }) => ({
      uid: wanted.uid,
      namespace: wanted.namespace,
      name: wanted.name,
      identity: wanted.identity,
      node: this.nodeName,
      addresses: wanted.addresses,
    }));
  }

  /** Starts to bring about what is wanted; resolves when every pod was tried once. */
  async reconcile(wanted: ReadonlyMap<string, WantedEnrolment>): Promise<void> {
    this.#wanted = wanted;
    await this.#advance();
  }

  /** Leaves with every pod at once. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#wanted = new Map();
    await Promise.all(
      this.list().map(({ wanted: { uid } }) =>
        this.#step(uid, (enrolment) => enrolment?.leave(false))
      ),
    );
  }

  async #advance(): Promise<void> {
    clearTimeout(this.#timer);
    const recheck = performance.now() - this.#checked >= RECHECK_MILLISECONDS;
    if (recheck) this.#checked = performance.now();
    const leaving = this.list().filter((enrolment) => this.#mustLeave(enrolment, recheck));
    const left = leaving.map(({ wanted }) =>
      this.#step(wanted.uid, (enrolment) => this.#leave(enrolment))
    );
    for (const [uid, wanted] of this.#wanted) {
      if (!this.#current.has(uid)) this.#current.set(uid, new Enrolment(wanted, this.services));
    }
    const waiting = this.list().filter(({ state }) => state === "waiting");
    const cgroups = waiting.length > 0
      ? findPodCgroups(this.cgroupRoot)
      : new Map<string, string>();
    const tried = waiting.map(({ wanted }) => {
      const cgroup = wanted.cgroupUids.map((uid) => cgroups.get(uid)).find(Boolean);
      return this.#step(wanted.uid, (enrolment) => enrolment?.enrol(cgroup));
    });
    await Promise.all(tried);
    this.#lookAgain();
    // Leaving may take its time to drain, and nobody has to wait for that.
    void Promise.all(left).then(() => this.#lookAgain());
  }

  #lookAgain(): void {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    const settled = this.list().every((enrolment) =>
      enrolment.state === "active" && !this.#mustLeave(enrolment, false)
    );
    this.#timer = setTimeout(
      () => this.#advance().catch((error) => log.error("{error}", { error: String(error) })),
      settled && this.#current.size === this.#wanted.size
        ? RECHECK_MILLISECONDS
        : RETRY_MILLISECONDS,
    );
  }

  #mustLeave(enrolment: Enrolment, recheck: boolean): boolean {
    if (enrolment.state !== "active" && enrolment.state !== "waiting") return false;
    const wanted = this.#wanted.get(enrolment.wanted.uid);
    if (wanted === undefined || !sameEnrolment(wanted, enrolment.wanted)) return true;
    return recheck && enrolment.state === "active" && !enrolment.isCurrent();
  }

  async #leave(enrolment: Enrolment | undefined): Promise<void> {
    if (enrolment === undefined) return;
    await enrolment.leave(enrolment.isCurrent());
    this.#current.delete(enrolment.wanted.uid);
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

function sameEnrolment(a: WantedEnrolment, b: WantedEnrolment): boolean {
  return a.identity === b.identity && a.addresses.length === b.addresses.length &&
    a.addresses.every((address) => b.addresses.includes(address));
}
