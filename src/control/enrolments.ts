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

  /**
   * Starts to bring about what is wanted; resolves when every pod was tried once. While `complete` is false,
   * `wanted` may lack some: none leaves.
   */
  async reconcile(wanted: ReadonlyMap<string, WantedEnrolment>, complete: boolean): Promise<void> {
    this.#wanted = complete ? wanted : new Map([...this.#wanted, ...wanted]);
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
    const waiting = this.list().filter(({ state }) => state === "waiting");
    if (waiting.length === 0) return;
    const cgroups = findPodCgroups(this.cgroupRoot);
    await Promise.all(waiting.map(({ wanted }) => {
      const cgroup = wanted.cgroupUids.map((uid) => cgroups.get(uid)).find(Boolean);
      return this.#step(wanted.uid, (enrolment) => enrolment?.enrol(cgroup));
    }));
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
    return recheck && enrolment.state === "active" && !isCurrent(enrolment);
  }

  async #leave(enrolment: Enrolment | undefined): Promise<void> {
    if (enrolment === undefined) return;
    await enrolment.leave(isCurrent(enrolment));
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

/** A node that is out of descriptors cannot tell, which is no reason to take a pod's encryption away. */
function isCurrent(enrolment: Enrolment): boolean {
  try {
    return enrolment.isCurrent();
  } catch (error) {
    log.warn("cannot look after {pod}: {error}", { pod: enrolment.name, error: String(error) });
    return true;
  }
}

function sameEnrolment(a: WantedEnrolment, b: WantedEnrolment): boolean {
  return a.identity === b.identity && a.addresses.length === b.addresses.length &&
    a.addresses.every((address) => b.addresses.includes(address));
}
