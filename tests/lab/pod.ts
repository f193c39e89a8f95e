import { ANNOTATION } from "../../src/constants.ts";
import { containerCgroup, type Layout, podCgroup, type QosClass, removeCgroup } from "./cgroup.ts";
import { podFile, type PodStore } from "./cluster_dir.ts";
import { connectPods, disconnectPod, podIpv4, podIpv6, type PodNetwork } from "./network.ts";
import type { Node } from "./node.ts";
import { Place } from "./place.ts";
import type { LabProcess, Processes } from "./process.ts";

export interface PodOptions {
  name: string;
  /** The node's name. */
  node: string;
  namespace?: string;
  /** The pod's name when not given. */
  serviceAccount?: string;
  layout?: Layout;
  qos?: QosClass;
  /** Both when not given. */
  families?: ("ipv4" | "ipv6")[];
  /** The value of the gateway's annotation; none when not given. */
  annotation?: string;
  /** Further annotations, by their whole key. */
  annotations?: Record<string, string>;
  hostNetwork?: boolean;
  uid?: string;
  /** The last part of the addresses (2 to 254), to give a removed pod's address to another. */
  host?: number;
  /**
   * When the Pod object is written: "after" the sandbox is up (with its addresses), "before" its
   * cgroup exists (phase Pending, no addresses, until `apply()`), or "never" (until `apply()`).
   */
  object?: "after" | "before" | "never";
}

/** A pod: a namespace, a cgroup in kubelet's layout, a sandbox process, and a Pod object. */
export class Pod extends Place implements PodNetwork, AsyncDisposable {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly serviceAccount: string;
  readonly hostNetwork: boolean;
  readonly ipv4?: string;
  readonly ipv6?: string;
  /** The pod's cgroup; the sandbox's and the application's lie below it. */
  readonly cgroup: string;
  readonly sandboxCgroup: string;
  /** The veth's end in the node's namespace; none (empty) with `hostNetwork`. */
  readonly hostVeth: string;
  annotation: string | undefined;
  readonly annotations: Record<string, string>;
  #sandbox?: LabProcess;

  readonly #qos: QosClass;
  #removed?: Promise<void>;

  constructor(
    processes: Processes,
    readonly node: Node,
    netnsPrefix: string,
    readonly options: PodOptions,
    private readonly cluster: PodStore,
    private readonly forget: (pod: Pod) => void,
  ) {
    const { name, namespace = "default", layout = "cgroupfs", qos = "burstable" } = options;
    const uid = options.uid ?? crypto.randomUUID();
    const cgroup = `${node.cgroup}/${podCgroup(layout, qos, uid)}`;
    const hostNetwork = options.hostNetwork ?? false;
    super(
      processes,
      hostNetwork ? node.netns : `${netnsPrefix}-pod-${namespace}-${name}`,
      `${cgroup}/${containerCgroup(layout, containerId())}`,
    );
    this.name = name;
    this.namespace = namespace;
    this.uid = uid;
    this.serviceAccount = options.serviceAccount ?? name;
    this.hostNetwork = hostNetwork;
    this.cgroup = cgroup;
    this.sandboxCgroup = `${cgroup}/${containerCgroup(layout, containerId())}`;
    this.hostVeth = hostNetwork ? "" : `veth${uid.replaceAll("-", "").slice(0, 8)}`;
    this.annotation = options.annotation;
    this.annotations = { ...options.annotations };
    this.#qos = qos;
    const families = options.families ?? ["ipv4", "ipv6"];
    const host = hostNetwork ? 0 : options.host ?? node.takeHostNumber();
    if (families.includes("ipv4")) {
      this.ipv4 = hostNetwork ? node.ipv4 : podIpv4(node.number, host);
    }
    if (families.includes("ipv6")) {
      this.ipv6 = hostNetwork ? node.ipv6 : podIpv6(node.number, host);
    }
  }

  /** The pod's addresses, IPv4 first. */
  get addresses(): string[] {
    return [this.ipv4, this.ipv6].filter((address) => address !== undefined);
  }

  /** "namespace/name", as an agent's status names the pod. */
  get key(): string {
    return `${this.namespace}/${this.name}`;
  }

  /** In the directory that plays the API server. */
  get fileName(): string {
    return podFile(this);
  }

  async makeCgroups(): Promise<void> {
    await Deno.mkdir(this.cgroup);
    await Deno.mkdir(this.sandboxCgroup);
    await Deno.mkdir(this.processCgroup);
  }

  /** Starts the pause process, which keeps the namespace as a container runtime's sandbox does. */
  startSandbox(): void {
    this.#sandbox = this.processes.spawn(
      { netns: this.netns, cgroup: this.sandboxCgroup },
      ["sleep", "infinity"],
    );
  }

  /**
   * What kubelet does when the sandbox has died: everything in the pod ends, and there is a new one
   * at the same addresses.
   */
  async replaceSandbox(): Promise<void> {
    for (const cgroup of [this.processCgroup, this.sandboxCgroup]) {
      await Deno.writeTextFile(`${cgroup}/cgroup.kill`, "1", { create: false });
    }
    await this.#sandbox?.exited;
    await disconnectPod(this.node, this);
    await connectPods(this.node, [this]);
    this.startSandbox();
  }

  get sandboxPid(): number {
    if (!this.#sandbox) throw new Error(`The pod ${this.key} has no sandbox yet`);
    return this.#sandbox.pid;
  }

  /** Writes the Pod object as it is now. */
  async apply(phase: "Pending" | "Running" = "Running"): Promise<void> {
    await this.cluster.writePod({
      name: this.name,
      namespace: this.namespace,
      uid: this.uid,
      annotations: {
        ...this.annotations,
        ...(this.annotation === undefined ? {} : { [ANNOTATION]: this.annotation }),
      },
      nodeName: this.node.name,
      serviceAccount: this.serviceAccount,
      hostNetwork: this.hostNetwork,
      qos: QOS_NAMES[this.#qos],
      phase,
      addresses: phase === "Running" ? this.addresses : [],
    });
  }

  /** What `kubectl annotate` does; undefined takes the annotation away. */
  async annotate(value: string | undefined): Promise<void> {
    this.annotation = value;
    await this.apply();
  }

  /** The same for another key. */
  async annotateWith(key: string, value: string | undefined): Promise<void> {
    if (value === undefined) delete this.annotations[key];
    else this.annotations[key] = value;
    await this.apply();
  }

  /** What kubelet does at a pod's end: processes, namespace, cgroup; then the object goes. */
  remove(): Promise<void> {
    return this.#removed ??= this.#remove();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.remove();
  }

  async #remove(): Promise<void> {
    await removeCgroup(this.cgroup);
    await this.#sandbox?.exited;
    if (!this.hostNetwork) await disconnectPod(this.node, this);
    await this.cluster.removePod(this);
    this.forget(this);
  }
}

const QOS_NAMES: Record<QosClass, string> = {
  guaranteed: "Guaranteed",
  burstable: "Burstable",
  besteffort: "BestEffort",
};

function containerId(): string {
  return (crypto.randomUUID() + crypto.randomUUID()).replaceAll("-", "");
}
