import { errorText } from "../error_text.ts";
import { NOBODY_DENIED } from "../cluster/deny_list.ts";
import type { Cluster, ClusterObjects, ClusterProblem } from "../cluster/cluster.ts";
import type { RegistryEntry } from "../cluster/registry.ts";
import type { Issuer } from "../identity/issuer.ts";
import type { Redirector } from "../kernel/redirector.ts";
import type { StateDirectory } from "../kernel/state_directory.ts";
import { logger } from "../log.ts";
import { releaseMemorySoon } from "../memory.ts";
import { releaseFreedMemory } from "../native/heap.ts";
import type { RelayWorkers } from "../relay/workers.ts";
import type { ShownCertificate } from "../relay/messages.ts";
import { Audit, type Audited } from "./audit/audit.ts";
import { RefusalLog } from "./audit/refusal_log.ts";
import { Enrolments } from "./pods/enrolments.ts";
import { openPodKernel } from "./pods/open_pod_kernel.ts";
import type { NodeAddresses } from "./routing/node_addresses.ts";
import { rememberedParts } from "./routing/remembered_parts.ts";
import { Routing } from "./routing/routing.ts";
import type { StrictEgressOptions } from "./routing/strict_egress.ts";
import { keptMilliseconds, VanishedParts } from "./rules/vanished_parts.ts";
import { type Desired, desiredState } from "./rules/desired.ts";
import { knownUids } from "./rules/known_pods.ts";
import type { PeerIndex } from "./rules/peer_index.ts";
import { whyNotReady } from "./rules/readiness.ts";
import { namedAddresses, ownAddresses, registryEntries } from "./rules/registry_entries.ts";
import { NOT_NAMED, type Registered, registeredOf, whyUnknown } from "./rules/registered.ts";
import type { Annotations } from "./rules/settings.ts";
import { notEnrolled, verdictsOf } from "./rules/verdicts.ts";

const log = logger("agent");

export interface NodeOptions extends StrictEgressOptions {
  readonly nodeName: string;
  readonly trustDomain: string;
  readonly cgroupRoot: string;
  readonly procRoot: string;
  /** Handlers of RuntimeClasses that have a guest kernel, beside those that are known to. */
  readonly guestRuntimes: readonly string[];
  /** What pods have that say nothing of it, nor their namespaces. */
  readonly defaults: Annotations;
}

export interface NodeServices {
  readonly redirector: Redirector;
  readonly workers: RelayWorkers;
  readonly cluster: Cluster;
  readonly issuer: Issuer;
  readonly index: PeerIndex;
  readonly nodeAddresses: Pick<NodeAddresses, "audit">;
  readonly state: Pick<StateDirectory, "keepCharge">;
}

/** What the agent does about its node: brings about what the cluster's objects ask for. */
export class NodeControl {
  readonly #nodeName: string;
  readonly #trustDomain: string;
  readonly #guestRuntimes: readonly string[];
  readonly #defaults: Annotations;
  readonly #services: NodeServices;
  /** Whom the workers know to be denied. */
  #denied = NOBODY_DENIED;
  readonly routing: Routing;
  readonly enrolments: Enrolments;
  readonly audit = new Audit(() => this.#audited());
  /** The last state of the cluster, and what follows from it. */
  objects: ClusterObjects | undefined;
  desired: Desired | undefined;
  #begun = false;
  /** The entries that the cluster was asked to publish last, as JSON. */
  #asked: string | undefined;
  #isEnding = false;
  #telling: ReturnType<typeof setTimeout> | undefined;
  /** When that was done last, by the monotonic clock. */
  #told = -Infinity;
  readonly #refusalLog = new RefusalLog();
  readonly #vanished = new VanishedParts();
  #forgetting: ReturnType<typeof setTimeout> | undefined;
  #tellingUsers: ReturnType<typeof setTimeout> | undefined;
  /** The pods that an earlier agent has left attached. */
  readonly #inherited: readonly string[];
  /**
   * Everything has been read, and every pod been tried once: what is published from now on is the
   * whole truth.
   */
  #settled = false;
  /**
   * What the registry says of this node's pods, as the watch shows it, and since when it says just
   * that.
   */
  #registered: ReadonlyMap<string, Registered & { readonly since: number }> = new Map();

  constructor(options: NodeOptions, services: NodeServices) {
    this.#nodeName = options.nodeName;
    this.#trustDomain = options.trustDomain;
    this.#guestRuntimes = options.guestRuntimes;
    this.#defaults = options.defaults;
    this.#services = services;
    this.#inherited = services.redirector.attached();
    const { redirector, issuer } = services;
    this.#vanished.remember(rememberedParts(redirector));
    this.routing = new Routing(options.nodeName, options, services);
    this.enrolments = new Enrolments(options.cgroupRoot, redirector.hold, {
      kernel: openPodKernel({
        ...services,
        procRoot: options.procRoot,
        identityAt: (address) => services.index.get(address)?.identity,
      }),
      issuer,
      registered: (uid) => this.#registered.get(uid)?.addresses ?? [],
      isToldSecured: (uid) => this.#podOf(uid)?.secured?.status === "True",
      changed: () => this.#tellSoon(),
      now: () => performance.now(),
    });
  }

  changed(objects: ClusterObjects): void {
    this.objects = objects;
    if (this.#begun && !this.#isEnding) this.#reconcile(objects);
  }

  /** What of the registry is kept although it has gone. */
  problems(): readonly ClusterProblem[] {
    return this.#vanished.problems();
  }

  begin(): void {
    this.#begun = true;
    this.audit.start();
    if (this.objects !== undefined) this.#reconcile(this.objects);
  }

  /** Why a pod may still be without what its annotation asks for; undefined when none is. */
  notReady(): string | undefined {
    return whyNotReady({
      hasObjects: this.objects !== undefined,
      hasBegun: this.#begun,
      isSettled: this.#settled,
      enrolments: this.enrolments.list(),
      problems: this.enrolments.problems().length,
    });
  }

  /** Leaves with every pod, or leaves them held. */
  async end(isLast: boolean): Promise<void> {
    this.#isEnding = true; // its own last words are a change, which must not be answered by publishing again
    clearTimeout(this.#telling);
    clearTimeout(this.#tellingUsers);
    clearTimeout(this.#forgetting);
    this.audit.stop();
    if (!isLast) return this.enrolments.pause();
    const { cluster } = this.#services;
    await within(LAST_WORDS_MILLISECONDS, this.#takeBack());
    await this.enrolments.stop();
    if (!this.#settled) return; // what an earlier agent published is not ours to judge
    await within(LAST_WORDS_MILLISECONDS, cluster.withdraw()).catch((error) =>
      log.error("the registry may still name this node's pods: {error}", {
        error: errorText(error),
      })
    );
  }

  #reconcile(objects: ClusterObjects): void {
    this.#bringAbout(objects).catch((error) =>
      log.error("reconciling failed: {error}", { error: errorText(error) })
    );
  }

  async #bringAbout(objects: ClusterObjects): Promise<void> {
    const [nodeName, trustDomain] = [this.#nodeName, this.#trustDomain];
    const desired = desiredState(
      objects,
      nodeName,
      trustDomain,
      this.#guestRuntimes,
      this.#defaults,
    );
    this.desired = desired;
    this.#readRegistry(objects);
    // What an earlier agent left is taken away only when everything has been read: a part is no
    // evidence.
    const first = objects.complete && !this.#settled;
    if (first) this.#detachUnwanted(desired);
    // Pods are held before the kernel knows the peers that they are held from.
    this.enrolments.want(desired.enrolments, knownUids(objects, nodeName), objects.complete);
    this.#route(objects);
    this.#deny(objects);
    if (first) releaseMemorySoon(releaseFreedMemory); // what it took to look at everything once
    this.#tellSoon();
    const tried = this.enrolments.reconcile();
    if (!first) return await tried;
    // Most pods are enrolled by then, so that the registry need not say that they are not ready,
    // and then that they are.
    await within(SETTLING_MILLISECONDS, tried);
    this.#settled = true;
    this.#tellSoon();
    await tried;
  }

  /** What has gone from the registry whole is forgotten a while later. */
  #route(objects: ClusterObjects): void {
    const now = performance.now();
    const keep = (node: string) => keptMilliseconds(node, objects.nodes);
    const registry = this.#vanished.apply(objects.registry, now, keep);
    this.routing.apply({ ...objects, registry });
    clearTimeout(this.#forgetting);
    const { next } = this.#vanished;
    if (next === undefined || this.#isEnding) return;
    this.#forgetting = setTimeout(() => this.#route(this.objects ?? objects), next - now);
  }

  /** A peer's certificate tells who is behind an address that several nodes' registries claim. */
  shown(certificate: ShownCertificate): void {
    const { objects } = this;
    if (this.#services.index.shown(certificate) && objects !== undefined) this.#route(objects);
  }

  #deny({ denied }: ClusterObjects): void {
    if (denied === this.#denied) return;
    this.#denied = denied;
    const { serials, identities, pods } = denied;
    this.#services.workers.deny({ serials, identities, pods });
  }

  #detachUnwanted(desired: Desired): void {
    for (const uid of this.#inherited) {
      if (!desired.enrolments.has(uid)) this.#services.redirector.detach(uid);
    }
  }

  #readRegistry(objects: ClusterObjects): void {
    const now = performance.now();
    this.#registered = new Map(
      [...registeredOf(objects.registry, this.#nodeName)].map(([uid, registered]) => {
        const before = this.#registered.get(uid);
        const { since: _, ...said } = { since: 0, ...before };
        const isSame = before !== undefined && JSON.stringify(said) === JSON.stringify(registered);
        return [uid, { ...registered, since: isSame ? before.since : now }];
      }),
    );
  }

  /** What many pods become at once is told at once: the registry first, users when it has it. */
  #tellSoon(): void {
    if (this.#isEnding) return;
    const wait = Math.max(TELL_MILLISECONDS, this.#told + BURST_MILLISECONDS - performance.now());
    this.#telling ??= setTimeout(() => {
      this.#telling = undefined;
      this.#told = performance.now();
      this.#tell();
    }, wait);
  }

  #tell(): void {
    const [objects, desired] = [this.objects, this.desired];
    if (objects === undefined || desired === undefined) return;
    if (this.#settled && objects.complete) {
      const { enrolments } = this;
      const node = this.#nodeName;
      const named = namedAddresses(objects.pods, node);
      const { usesPodCidrs } = this.#services.index;
      const isOurs = ownAddresses(objects, node, usesPodCidrs, this.#registered.values());
      const enrolmentOf = (uid: string) => enrolments.get(uid);
      this.#publish(registryEntries(desired, node, named, isOurs, enrolmentOf));
    }
    this.#tellUsers(objects, desired);
  }

  /**
   * Asks for what was not asked for last: the cluster goes on trying by itself, and writes what
   * others undo again.
   */
  #publish(entries: readonly RegistryEntry[]): void {
    const text = JSON.stringify(entries);
    if (text === this.#asked) return;
    this.#asked = text;
    this.#services.cluster.publish(entries).catch((error) => {
      this.#asked = undefined;
      log.warn("the registry is not written yet: {error}", { error: errorText(error) });
    });
  }

  /**
   * Said again after a while, since some of it depends on nothing but time: how long a pod has
   * waited, for example.
   */
  #tellUsers(objects: ClusterObjects, desired: Desired): void {
    const now = performance.now();
    let isSoon = false;
    const evidence = {
      nodeName: this.#nodeName,
      hasNode: objects.nodes.size === 0 || objects.nodes.has(this.#nodeName),
      doubted: this.#services.index.doubted(),
    };
    const whyNotSecured = (uid: string) => {
      const enrolment = this.enrolments.get(uid);
      const registered = this.#registered.get(uid);
      if (enrolment === undefined || registered === undefined) return NOT_NAMED;
      const { wanted: { identity }, addresses } = enrolment;
      const why = whyUnknown(registered, { identity, addresses }, evidence);
      if (why !== undefined) return why;
      if (now - registered.since >= PROPAGATION_MILLISECONDS) return undefined;
      isSoon = true;
      return NOT_NAMED;
    };
    const pods = objects.pods.filter(({ nodeName }) => nodeName === this.#nodeName);
    void this.#services.cluster.tell(
      verdictsOf(pods, desired, this.enrolments.list(), whyNotSecured, [
        ...this.#trustProblems(),
        ...objects.unread.map(({ name, message }) => `${name}: ${message}`),
      ]),
    );
    clearTimeout(this.#tellingUsers);
    this.#tellingUsers = setTimeout(
      () => this.#tellUsers(this.objects ?? objects, this.desired ?? desired),
      isSoon ? BURST_MILLISECONDS : TELL_AGAIN_MILLISECONDS,
    );
  }

  #trustProblems(): string[] {
    const problem = this.#services.issuer.trustProblem?.();
    return problem === undefined ? [] : [problem];
  }

  /**
   * The last words of an agent: nothing is secured any more. Whoever removes it may have taken its
   * rights.
   */
  async #takeBack(): Promise<void> {
    const pods = this.objects?.pods.filter(({ secured }) => secured?.status === "True") ?? [];
    await this.#services.cluster.tell(
      pods.map((pod) => notEnrolled(pod, "kube-gateway was removed from its node")),
    );
  }

  /** Everything that the agent says of itself, and how to look whether it is so. */
  #audited(): Audited[] {
    const { redirector, state } = this.#services;
    const counts = Map.groupBy(redirector.guardCounts.all(), ({ pod }): bigint | undefined => pod);
    return [
      { name: "state directory", inspect: () => state.keepCharge() },
      ...this.enrolments.list().map((each) => ({
        name: each.name,
        inspect: (full: boolean) => each.inspect(counts.get(each.cgroupId), full),
      })),
      { name: "pods that are held", inspect: () => this.enrolments.inspectHolds() },
      {
        name: "maps of peers and Services",
        inspect: (full) =>
          Object.entries({
            ...this.routing.audit(full),
            node_address: this.#services.nodeAddresses.audit(),
          }).filter(([, count]) => count > 0).map((
            [kind, count],
          ) => ({ kind, count, what: `${count} entries were missing or wrong (${kind})` })),
      },
      { name: "counts of pods that are gone", inspect: () => this.#forgetGone() },
      { name: "refusals in the kernel", inspect: () => this.#logRefusals() },
      {
        name: "pinned maps",
        inspect: () => {
          const faults = redirector.inspectMaps();
          if (faults.length > 0) redirector.pinMaps();
          return faults;
        },
      },
    ];
  }

  #logRefusals(): [] {
    const names = new Map(this.enrolments.list().map(({ cgroupId, name }) => [cgroupId, name]));
    this.#refusalLog.look(this.#services.redirector.refusals.all(), (id) => names.get(id));
    return [];
  }

  /** Makes room in the kernel's counts. Nothing that is found there is wrong. */
  #forgetGone(): [] {
    const { guardCounts, deviceGuard, refusals, hold } = this.#services.redirector;
    const ids = new Set(this.enrolments.list().flatMap(({ cgroupId }) => cgroupId ?? []));
    guardCounts.forgetAllBut(ids);
    deviceGuard.forgetAllBut(ids);
    refusals.forgetAllBut((cgroup) => hold.hasLetGo(cgroup)); // also those that are not enrolled again yet
    return [];
  }

  #podOf(uid: string) {
    return this.objects?.pods.find((pod) => pod.uid === uid);
  }
}

async function within(milliseconds: number, work: Promise<unknown>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => timer = setTimeout(resolve, milliseconds));
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * What is done together is told together; what comes soon after it, in a burst of changes, is told
 * a little later.
 */
const TELL_MILLISECONDS = 30;
const BURST_MILLISECONDS = 300;

/** Nothing that users are told is older than this. */
const TELL_AGAIN_MILLISECONDS = 5_000;

/** Other agents have read the registry by then: until they have, their pods connect in clear. */
const PROPAGATION_MILLISECONDS = 1_000;

const SETTLING_MILLISECONDS = 1_000;
const LAST_WORDS_MILLISECONDS = 3_000;
