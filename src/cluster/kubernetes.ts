import * as v from "valibot";
import { GATEWAY_NAMESPACE, REGISTRY_LABEL } from "../constants.ts";
import type { KubernetesApi } from "../kubernetes/api.ts";
import { type WatchedList, watchList, type WatchOptions } from "../kubernetes/watch.ts";
import { logger } from "../log.ts";
import { partOf, type RegistryEntry, type RegistryPart, requireNodeName } from "./registry.ts";
import { CollectedChanges } from "./collected_changes.ts";
import type { Verdict } from "./verdict.ts";
import type { Cluster, ClusterProblem } from "./cluster.ts";
import type { ClusterObjects } from "./cluster.ts";
import {
  type Namespace,
  type Pod,
  readNamespace,
  readPod,
  readRuntimeClass,
  readSlice,
} from "./objects.ts";
import { DENY_LIST, NOBODY_DENIED, readDenyList } from "./deny_list.ts";
import { isSameNode, type NodeFacts, readNode } from "./nodes.ts";
import { RegistryPublisher } from "./publisher.ts";
import {
  readService,
  readServiceEndpoints,
  type Service,
  type ServiceEndpoints,
} from "./services.ts";
import { ConditionWriter } from "./condition_writer.ts";
import { UnreadLists } from "./unread_lists.ts";

const log = logger("cluster");

export interface KubernetesClusterOptions {
  readonly api: KubernetesApi;
  readonly nodeName: string;
  readonly trustDomain: string;
  /** The DaemonSet that runs this agent, followed to know its end; undefined when nothing does. */
  readonly daemonSet: string | undefined;
}

/**
 * The cluster behind an API server: this node's pods, all namespaces, Services and their endpoints,
 * and the registry. Kept is what routing and enrolling need, never the objects.
 *
 * @throws {TypeError} when the node's name cannot be a label's value.
 */
export function openKubernetesCluster(options: KubernetesClusterOptions): Cluster {
  requireNodeName(options.nodeName);
  return new KubernetesCluster(options);
}

class KubernetesCluster implements Cluster {
  readonly #options: KubernetesClusterOptions;
  readonly #publisher: RegistryPublisher;
  readonly #conditions: ConditionWriter;
  readonly #watches: WatchedList[] = [];
  readonly #unread: UnreadLists;
  #pods: ReadonlyMap<string, Pod> = new Map();
  #namespaces: ReadonlyMap<string, Namespace> = new Map();
  #slices: ReadonlyMap<string, Slice> = new Map();
  #services: ReadonlyMap<string, Service> = new Map();
  #endpoints: ReadonlyMap<string, ServiceEndpoints> = new Map();
  /** This node's slices, as the watch shows them. */
  #own: ReadonlyMap<string, unknown> | undefined;
  #runtimeHandlers: ReadonlyMap<string, string> = new Map();
  #nodes: ReadonlyMap<string, NodeFacts> = new Map();
  #denied = NOBODY_DENIED;
  #daemonSets: ReadonlyMap<string, { deleting: boolean }> | undefined;
  #changes: CollectedChanges | undefined;

  constructor(options: KubernetesClusterOptions) {
    this.#options = options;
    this.#publisher = new RegistryPublisher(options.api, options.nodeName);
    this.#conditions = new ConditionWriter(options.api, options.nodeName);
    this.#unread = new UnreadLists(options.api, () => this.#changes?.changed());
  }

  async start(onChange: (objects: ClusterObjects) => void): Promise<void> {
    const { nodeName, trustDomain, daemonSet } = this.#options;
    const synced = [
      this.#watch({
        name: "pods of this node",
        hides: "Which pods are annotated, and which have ended, is not seen",
        path: "/api/v1/pods",
        query: { fieldSelector: `spec.nodeName=${nodeName}` },
        read: (pod) => readPod(pod),
      }, (pods) => this.#pods = pods),
      this.#watch({
        name: "namespaces",
        hides: "Which namespaces are annotated is not seen",
        path: "/api/v1/namespaces",
        read: (value) => readNamespace(value),
      }, (namespaces) => {
        this.#namespaces = namespaces;
        if (this.#isBeingTakenAway()) void this.#sayLastWords();
      }),
      this.#watch({
        name: "registry",
        ...PEERS_ARE_HIDDEN,
        path: `${DISCOVERY}/namespaces/${GATEWAY_NAMESPACE}/endpointslices`,
        query: { labelSelector: REGISTRY_LABEL },
        read: (value) => readPart(value, nodeName, trustDomain),
      }, (slices) => {
        this.#slices = slices;
        this.#observeOwn();
      }),
      this.#watch(
        {
          name: "services",
          ...PEERS_ARE_HIDDEN,
          path: "/api/v1/services",
          read: (value) => readService(value),
        },
        (services) => this.#services = services,
      ),
      this.#watch({
        name: "endpoints of services",
        ...PEERS_ARE_HIDDEN,
        path: `${DISCOVERY}/endpointslices`,
        query: { labelSelector: `!${REGISTRY_LABEL}` },
        read: (value) => readServiceEndpoints(value),
      }, (endpoints) => this.#endpoints = endpoints),
      this.#watchNodes(),
      this.#watch({
        name: "deny list",
        hides: "Who has been denied since may still connect, and be connected to",
        path: `/api/v1/namespaces/${GATEWAY_NAMESPACE}/configmaps`,
        query: { fieldSelector: `metadata.name=${DENY_LIST}` },
        read: (value) => readDenyList(value),
      }, (lists) => this.#denied = lists.values().next().value ?? NOBODY_DENIED),
    ];
    // Not waited for: the pods of a class that is not known are guarded.
    void this.#watch({
      name: "runtime classes",
      hides: "Pods of classes that are new are guarded as those with a kernel of their own",
      path: "/apis/node.k8s.io/v1/runtimeclasses",
      read: (value) => readRuntimeClass(value).handler,
    }, (handlers) => this.#runtimeHandlers = handlers);
    if (daemonSet !== undefined) {
      this.#watch({
        name: "this agent's DaemonSet",
        hides: "That it is deleted is not seen: pods stay held when this agent ends",
        path: `/apis/apps/v1/namespaces/${GATEWAY_NAMESPACE}/daemonsets`,
        query: { fieldSelector: `metadata.name=${daemonSet}` },
        read: readDeletion,
      }, (daemonSets) => {
        this.#daemonSets = daemonSets;
        if (this.#isBeingTakenAway()) void this.#sayLastWords();
      });
    }

    const waiting = setInterval(() => this.#logWaiting(), WAITING_MILLISECONDS);
    await Promise.all(synced).finally(() => clearInterval(waiting));
    this.#unread.begin();
    this.#changes = new CollectedChanges(() => onChange(this.#objects()));
    this.#changes.begin();
  }

  publish(entries: readonly RegistryEntry[]): Promise<void> {
    return this.#publisher.publish(entries);
  }

  withdraw(): Promise<void> {
    return this.#publisher.withdraw();
  }

  tell(verdicts: readonly Verdict[]): Promise<void> {
    // Its last words have been said: nothing is secured in a cluster that it is being taken away
    // from.
    return this.#isBeingTakenAway() ? this.#sayLastWords() : this.#conditions.tell(verdicts);
  }

  problems(): readonly ClusterProblem[] {
    const unreadable = this.#watches.flatMap((watch) =>
      [...watch.problems()].map(([file, message]) => ({ file, message }))
    );
    const unread = this.#unread.list().map(({ name, message }) => ({ file: name, message }));
    return [...unread, ...unreadable, ...this.#publisher.problems()];
  }

  get silence(): number {
    return this.#options.api.silence;
  }

  isBeingUninstalled(): boolean {
    // Without a DaemonSet nobody would come after us.
    return this.#options.daemonSet === undefined || this.#isBeingTakenAway();
  }

  async close(): Promise<void> {
    this.#changes?.end();
    this.#unread.close();
    await Promise.all([
      this.#publisher.close(),
      this.#conditions.close(),
      ...this.#watches.map((watch) => watch.close()),
    ]);
  }

  /**
   * Whether the namespace or the DaemonSet that this agent belongs to is seen to be going or gone.
   */
  #isBeingTakenAway(): boolean {
    if (this.#options.daemonSet === undefined) return false;
    if (this.#namespaces.get(GATEWAY_NAMESPACE)?.deleting) return true;
    const [daemonSet] = this.#daemonSets?.values() ?? [{ deleting: false }]; // unknown yet: it is there
    return daemonSet === undefined || daemonSet.deleting;
  }

  /**
   * Takes back what the pods' status says, before this agent is told to end: whoever takes it away
   * also takes the account that it speaks by, within a moment.
   */
  #sayLastWords(): Promise<void> {
    const secured = [...this.#pods.values()].filter(({ secured }) => secured?.status === "True");
    return this.#conditions.tell(secured.map((pod) => ({
      pod,
      status: "False",
      reason: "NotEnrolled",
      message: LAST_WORDS,
    })));
  }

  /** Resolves when it has been listed whole. */
  #watch<T>(
    options: FollowOptions<T>,
    set: (items: ReadonlyMap<string, T>) => void,
  ): Promise<void> {
    return this.#follow({
      ...options,
      onChange: (items) => {
        set(items);
        this.#changes?.changed();
      },
    });
  }

  #follow<T>({ hides, hidesPeers = false, ...options }: FollowOptions<T> & OnChange<T>) {
    const list = watchList(this.#options.api, options);
    this.#watches.push(list);
    this.#unread.follow({ name: options.name, list, hides, hidesPeers });
    return list.synced;
  }

  /** An agent that waits at its start says for what: nobody can ask it yet. */
  #logWaiting(): void {
    const lists = this.#unread.unheard();
    if (lists.length === 0) return;
    log.warn("waiting for the API server: {lists}", { lists: lists.join("; ") });
  }

  /** Kubelets write their Nodes every few minutes, almost always without anything new for us. */
  #watchNodes(): Promise<void> {
    let changed = false;
    return this.#follow({
      name: "nodes",
      ...PEERS_ARE_HIDDEN,
      path: "/api/v1/nodes",
      read: (value) => {
        const node = readNode(value);
        const known = this.#nodes.get(node.name);
        if (known !== undefined && isSameNode(known, node)) return known;
        changed = true;
        return node;
      },
      onChange: (nodes) => {
        if (!changed && nodes.size === this.#nodes.size) return;
        changed = false;
        this.#nodes = new Map(nodes);
        this.#changes?.changed();
      },
    });
  }

  #objects(): ClusterObjects {
    return {
      pods: [...this.#pods.values()],
      namespaces: this.#namespaces,
      hasNamespaces: true,
      runtimeHandlers: this.#runtimeHandlers,
      registry: [...this.#slices.values()].map(({ part }) => part),
      services: this.#services,
      endpoints: this.#endpoints,
      nodes: this.#nodes,
      denied: this.#denied,
      unread: this.#unread.list(),
      complete: true,
    };
  }

  /**
   * Tells the publisher when there is something new of our own: other nodes' slices change all the
   * time.
   */
  #observeOwn(): void {
    const own = new Map<string, unknown>();
    for (const { name, own: object } of this.#slices.values()) {
      if (object !== undefined) own.set(name, object);
    }
    const isSame = own.size === this.#own?.size &&
      [...own].every(([name, object]) => this.#own?.get(name) === object);
    if (isSame) return;
    this.#own = own;
    this.#publisher.observed(own);
  }
}

/** What is followed, and what is not seen while it cannot be read. */
interface FollowOptions<T> extends Omit<WatchOptions<T>, "onChange"> {
  readonly hides: string;
  readonly hidesPeers?: boolean;
}

type OnChange<T> = Pick<WatchOptions<T>, "onChange">;

const PEERS_ARE_HIDDEN = {
  hides: "Which pods are enrolled, and what leads to them, is not seen",
  hidesPeers: true,
} as const;

/**
 * A slice of the registry; of our own node's also the object, to see when somebody else changes it.
 */
interface Slice {
  readonly name: string;
  readonly part: RegistryPart;
  readonly own: unknown;
}

function readPart(value: unknown, nodeName: string, trustDomain: string): Slice | undefined {
  const slice = readSlice(value);
  if (slice === undefined) return undefined;
  return {
    name: slice.name,
    part: partOf(slice, trustDomain),
    own: slice.node === nodeName ? value : undefined,
  };
}

function readDeletion(value: unknown): { deleting: boolean } {
  const { metadata } = v.parse(DeletionSchema, value);
  return { deleting: metadata.deletionTimestamp !== undefined };
}

const DeletionSchema = v.object({
  metadata: v.object({ deletionTimestamp: v.optional(v.string()) }),
});

const LAST_WORDS =
  "its connections are not encrypted: kube-gateway is being removed from the cluster";

const DISCOVERY = "/apis/discovery.k8s.io/v1";

const WAITING_MILLISECONDS = 10_000;
