import type { Issuer } from "../identity/issuer.ts";
import type { Redirector } from "../kernel/redirector.ts";
import { logger } from "../log.ts";
import { releaseMemorySoon } from "../memory.ts";
import type { RelayWorkers } from "../relay/workers.ts";
import { knownUids } from "./pods/cgroup_watch.ts";
import type { Cluster } from "../cluster/cluster.ts";
import type { ClusterObjects } from "../cluster/cluster.ts";
import { type Desired, desiredState } from "./rules/desired.ts";
import { Enrolments } from "./pods/enrolments.ts";
import type { PeerIndex } from "./rules/peer_index.ts";
import { Routing } from "./routing/routing.ts";
import type { StrictEgressOptions } from "./routing/strict_egress.ts";
import { notEnrolled, verdictsOf } from "./rules/verdicts.ts";

const log = logger("agent");

export interface NodeOptions extends StrictEgressOptions {
  readonly nodeName: string;
  readonly trustDomain: string;
  readonly cgroupRoot: string;
  readonly procRoot: string;
}

export interface NodeServices {
  readonly redirector: Redirector;
  readonly workers: RelayWorkers;
  readonly cluster: Cluster;
  readonly issuer: Issuer;
  readonly index: PeerIndex;
}

/** What the agent does about its node: brings about what the cluster's objects ask for. */
export class NodeControl {
  readonly #nodeName: string;
  readonly #trustDomain: string;
  readonly #services: NodeServices;
  readonly routing: Routing;
  readonly enrolments: Enrolments;
  /** The last state of the cluster, and what follows from it. */
  objects: ClusterObjects | undefined;
  desired: Desired | undefined;
  #begun = false;
  #telling: ReturnType<typeof setTimeout> | undefined;
  /** The pods that an earlier agent has left attached; births come on top. */
  readonly #inherited: readonly string[];
  /** An agent that comes back must not withdraw pods that it has not had the time to enrol again. */
  #settled = false;
  /** The UIDs that the registry has. */
  #published: ReadonlySet<string> = new Set();

  constructor(options: NodeOptions, services: NodeServices) {
    this.#nodeName = options.nodeName;
    this.#trustDomain = options.trustDomain;
    this.#services = services;
    this.#inherited = services.redirector.attached();
    this.routing = new Routing(options.nodeName, options, services);
    this.enrolments = new Enrolments(options.nodeName, options.cgroupRoot, {
      ...services,
      procRoot: options.procRoot,
      publish: () => this.#publish(),
      changed: () => this.#tellSoon(),
    });
  }

  changed(objects: ClusterObjects): void {
    this.objects = objects;
    if (this.#begun) this.#reconcile(objects);
  }

  begin(): void {
    this.#begun = true;
    if (this.objects !== undefined) this.#reconcile(this.objects);
  }

  /** Why a pod may still be without what its annotation asks for; undefined when none is. */
  notReady(): string | undefined {
    if (this.objects === undefined) return "the cluster's objects have not been read yet";
    if (!this.#begun) return undefined; // ready to follow the agent that is still here
    if (!this.#settled) return "the pods of this node have not all been tried yet";
    const late = this.enrolments.list().filter(({ state, isPresent }) =>
      (state === "waiting" || state === "enrolling") && isPresent
    );
    return late.length === 0
      ? undefined
      : late.map(({ name, reason }) => `${name}: ${reason ?? "enrolling"}`).join("\n");
  }

  /** Leaves with every pod, or leaves them held. */
  async end(isLast: boolean): Promise<void> {
    if (!isLast) return this.enrolments.pause();
    await this.enrolments.stop();
    await this.#takeBack();
    if (!this.#settled) return; // what an earlier agent published is not ours to judge
    await this.#services.cluster.publish([]).catch((error) =>
      log.error("the registry may still name this node's pods: {error}", { error: String(error) })
    );
  }

  #reconcile(objects: ClusterObjects): void {
    this.#bringAbout(objects).catch((error) =>
      log.error("reconciling failed: {error}", { error: String(error) })
    );
  }

  async #bringAbout(objects: ClusterObjects): Promise<void> {
    const [nodeName, trustDomain] = [this.#nodeName, this.#trustDomain];
    const desired = desiredState(objects, nodeName, trustDomain);
    this.desired = desired;
    // What an earlier agent left is taken away only when everything has been read: a part is no evidence.
    const first = objects.complete && !this.#settled;
    if (first) this.#detachUnwanted(desired);
    // Pods are held before the kernel knows the peers that they are held from.
    this.enrolments.want(desired.enrolments, knownUids(objects, nodeName), objects.complete);
    this.routing.apply(objects);
    if (first) releaseMemorySoon(); // what it took to look at everything once
    this.#tellSoon();
    await this.enrolments.reconcile();
    if (!first) return;
    this.#settled = true;
    await this.#publish();
  }

  #detachUnwanted(desired: Desired): void {
    for (const uid of this.#inherited) {
      if (!desired.enrolments.has(uid)) this.#services.redirector.detach(uid);
    }
  }

  /** What many pods become at once is told at once. */
  #tellSoon(): void {
    this.#telling ??= setTimeout(() => {
      this.#telling = undefined;
      const [objects, desired] = [this.objects, this.desired];
      if (objects === undefined || desired === undefined) return;
      const pods = objects.pods.filter(({ nodeName }) => nodeName === this.#nodeName);
      const isPublished = (uid: string) => this.#published.has(uid);
      void this.#services.cluster.tell(
        verdictsOf(pods, desired, this.enrolments.list(), isPublished),
      );
    }, TELL_MILLISECONDS);
  }

  /** The last words of an agent: nothing is secured any more. Whoever removes it may have taken its rights. */
  async #takeBack(): Promise<void> {
    clearTimeout(this.#telling);
    const pods = this.objects?.pods.filter(({ secured }) => secured?.status === "True") ?? [];
    const told = this.#services.cluster.tell(
      pods.map((pod) => notEnrolled(pod, "kube-gateway was removed from its node")),
    );
    await Promise.race([
      told,
      new Promise((resolve) => setTimeout(resolve, LAST_WORDS_MILLISECONDS)),
    ]);
  }

  async #publish(): Promise<void> {
    if (!this.#settled) return;
    const entries = this.enrolments.entries();
    await this.#services.cluster.publish(entries);
    this.#published = new Set(entries.map(({ uid }) => uid));
    this.#tellSoon();
  }
}

/** People are slower, and what has to be done first is done first. */
const TELL_MILLISECONDS = 300;
const LAST_WORDS_MILLISECONDS = 2_000;
