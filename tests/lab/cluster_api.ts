import { parseAllDocuments } from "yaml";
import { SECURED_CONDITION } from "../../src/constants.ts";
import { ApiServer, POLICIES } from "./api_server/controller.ts";
import type { KubeObject } from "./api_server/objects.ts";
import type { PodObject, PodStore } from "./cluster_dir.ts";
import { nodeIpv4, nodeIpv6, OUTSIDE } from "./network.ts";
import type { Node } from "./node.ts";
import type { Place } from "./place.ts";

/**
 * The lab's cluster behind an API server, set up as `kubectl apply -f daemonset/` does (its
 * policies are evaluated by policies.ts): Nodes, rights, and for each agent a token that is bound
 * to a pod on its node.
 */
export class ClusterApi implements PodStore {
  readonly #pods = new Map<string, string>();
  readonly #known = new Set<string>();
  readonly #nodeUids = new Map<string, string>();

  static async open(
    outside: Place,
    nodes: readonly Node[],
    temporary: string,
  ): Promise<ClusterApi> {
    const directory = `${temporary}/api`;
    await Deno.mkdir(directory);
    const server = await ApiServer.start({
      place: outside,
      address: OUTSIDE.ipv4,
      port: 6443,
      directory,
      admission: POLICIES,
    });
    const cluster = new ClusterApi(server);
    for (const manifest of await manifests()) await server.apply(manifest);
    for (const node of nodes) await cluster.addNode(node);
    return cluster;
  }

  private constructor(readonly server: ApiServer) {}

  /** What the DaemonSet's pod on a node has for its service account; another one at every call. */
  async agentKubeconfig(nodeName: string): Promise<string> {
    const name = `kube-gateway-agent-${crypto.randomUUID().slice(0, 5)}`;
    const uid = crypto.randomUUID();
    await this.server.seed([podObject({ ...AGENT_POD, name, uid, nodeName }, "")]);
    const nodeUid = this.#nodeUids.get(nodeName);
    const account = await this.server.serviceAccount("kube-gateway", "kube-gateway-agent", {
      name,
      uid,
      nodeName,
      ...(nodeUid === undefined ? {} : { nodeUid }),
    });
    return account.kubeconfig;
  }

  /** An agent's, but bound to no pod: the API server knows of no node behind it. */
  async unboundAgentKubeconfig(): Promise<string> {
    return (await this.server.serviceAccount("kube-gateway", "kube-gateway-agent")).kubeconfig;
  }

  async signerKubeconfig(): Promise<string> {
    return (await this.server.serviceAccount("kube-gateway", "kube-gateway-signer")).kubeconfig;
  }

  async writePod(pod: PodObject): Promise<void> {
    const key = `${pod.namespace}/${pod.name}`;
    const reference = { resource: "pods", namespace: pod.namespace, name: pod.name };
    const annotations: Record<string, string | null> = { ...pod.annotations };
    if (this.#pods.get(key) !== pod.uid) {
      await this.#ensureNamespace(pod.namespace);
      this.#pods.set(key, pod.uid);
      // Stored as it is: the lab has chosen the UID, by which it has named the pod's cgroup.
      await this.server.seed([podObject(pod, pod.phase)]);
      return;
    }
    const { metadata } = await this.server.get<KubeObject>(reference);
    for (const old of Object.keys(metadata.annotations ?? {})) annotations[old] ??= null;
    await this.server.patch(reference, { metadata: { annotations } });
    await this.server.patch(reference, { status: podStatus(pod, pod.phase) }, "status");
  }

  async removePod({ namespace, name }: Pick<PodObject, "namespace" | "name">): Promise<void> {
    if (!this.#pods.delete(`${namespace}/${name}`)) return;
    await this.server.delete({ resource: "pods", namespace, name }, { gracePeriodSeconds: 0 });
  }

  /** What `kubectl annotate namespace` does; undefined takes the annotation away. */
  async annotateNamespace(name: string, key: string, value: string | undefined): Promise<void> {
    await this.#ensureNamespace(name);
    await this.server.annotate({ resource: "namespaces", name }, key, value);
  }

  /** The pod's condition `kube-gateway.io/Secured`. */
  async secured(pod: { namespace: string; name: string }): Promise<Condition | undefined> {
    const { namespace, name } = pod;
    const { status } = await this.server.get<{ status?: { conditions?: Condition[] } }>(
      { resource: "pods", namespace, name },
    );
    return status?.conditions?.find(({ type }) => type === SECURED_CONDITION);
  }

  /** Makes the Node object, as kubelet does when it finds none. */
  async addNode({ name, number }: Pick<Node, "name" | "number">): Promise<void> {
    const podCIDRs = [`10.77.${number}.0/24`, `fd77:${number.toString(16)}::/64`];
    const addresses = [nodeIpv4(number), nodeIpv6(number)].map((address) => ({
      type: "InternalIP",
      address,
    }));
    const { metadata: { uid } } = await this.server.create<KubeObject>({
      apiVersion: "v1",
      kind: "Node",
      metadata: { name },
      spec: { podCIDR: podCIDRs[0], podCIDRs },
    });
    this.#nodeUids.set(name, String(uid));
    await this.server.patch({ resource: "nodes", name }, { status: { addresses } }, "status");
  }

  async #ensureNamespace(name: string): Promise<void> {
    if (this.#known.has(name)) return;
    this.#known.add(name);
    await this.server.apply({ apiVersion: "v1", kind: "Namespace", metadata: { name } });
  }
}

export interface Condition {
  type: string;
  status: string;
  reason: string;
  message: string;
  lastTransitionTime: string;
}

/** An object of a manifest, as deep as somebody looks into it. */
export interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string };
  [field: string]: unknown;
}

/** Everything in daemonset/, or in a folder of it, in the order of the files' names. */
export async function manifests(folder = ""): Promise<Manifest[]> {
  const directory = new URL(`../../daemonset/${folder}`, import.meta.url);
  const names = (await Array.fromAsync(Deno.readDir(directory)))
    .map(({ name }) => name).filter((name) => name.endsWith(".yaml")).sort();
  const texts = await Promise.all(names.map((name) => Deno.readTextFile(new URL(name, directory))));
  return texts.flatMap((text) => parseAllDocuments(text).map((one) => one.toJS() as Manifest));
}

function podObject(pod: PodObject, phase: string): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: pod.name,
      namespace: pod.namespace,
      uid: pod.uid,
      annotations: pod.annotations,
      creationTimestamp: new Date().toISOString(),
    },
    spec: {
      nodeName: pod.nodeName,
      serviceAccountName: pod.serviceAccount,
      ...(pod.hostNetwork ? { hostNetwork: true } : {}),
      containers: [{ name: "app", image: "lab" }],
    },
    status: podStatus(pod, phase || "Running"),
  };
}

function podStatus({ addresses, qos }: PodObject, phase: string): object {
  return {
    phase,
    qosClass: qos,
    ...(addresses.length === 0
      ? {}
      : { podIP: addresses[0], podIPs: addresses.map((ip) => ({ ip })) }),
  };
}

const AGENT_POD: PodObject = {
  name: "",
  namespace: "kube-gateway",
  uid: "",
  annotations: {},
  nodeName: "",
  serviceAccount: "kube-gateway-agent",
  hostNetwork: false,
  qos: "Burstable",
  phase: "Running",
  addresses: [],
};
