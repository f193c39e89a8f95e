import { dirname } from "node:path";

/** Where the lab's pods have their objects. */
export interface PodStore {
  /** Creates the object, or makes it what it is now. */
  writePod(pod: PodObject): Promise<void>;
  /** Removes the object; one that is not there is fine. */
  removePod(pod: Pick<PodObject, "namespace" | "name">): Promise<void>;
}

/** The directory that plays the API server: ordinary Kubernetes objects, a file each. */
export class ClusterDirectory implements PodStore {
  constructor(readonly path: string) {}

  async writePod(pod: PodObject): Promise<void> {
    await this.write(podFile(pod), podYaml(pod));
  }

  async removePod(pod: Pick<PodObject, "namespace" | "name">): Promise<void> {
    await this.remove(podFile(pod));
  }

  /** Writes a file so that a reader sees the old one or the new one, never a part. */
  async write(fileName: string, text: string): Promise<void> {
    await Deno.mkdir(dirname(`${this.path}/${fileName}`), { recursive: true });
    // No .yaml or .json ending: an agent does not read it before it has its name.
    const unfinished = `${this.path}/.${crypto.randomUUID()}.unfinished`;
    await Deno.writeTextFile(unfinished, text);
    await Deno.rename(unfinished, `${this.path}/${fileName}`);
  }

  /** Removes a file; one that is not there is fine. */
  async remove(fileName: string): Promise<void> {
    try {
      await Deno.remove(`${this.path}/${fileName}`);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

export interface PodObject {
  name: string;
  namespace: string;
  uid: string;
  annotations: Record<string, string>;
  nodeName: string;
  serviceAccount: string;
  hostNetwork: boolean;
  qos: string;
  phase: "Pending" | "Running";
  /** IPv4 first: the first one is `status.podIP`. */
  addresses: string[];
}

/** The file of a pod's object. */
export function podFile({ namespace, name }: Pick<PodObject, "namespace" | "name">): string {
  return `pod-${namespace}-${name}.yaml`;
}

/** What `kubectl get pod -o yaml` would print of such a pod, as far as an agent may look at it. */
export function podYaml(pod: PodObject): string {
  const annotations = Object.entries(pod.annotations);
  const lines = [
    "apiVersion: v1",
    "kind: Pod",
    "metadata:",
    `  name: ${quote(pod.name)}`,
    `  namespace: ${quote(pod.namespace)}`,
    `  uid: ${quote(pod.uid)}`,
    ...(annotations.length === 0 ? [] : ["  annotations:"]),
    ...annotations.map(([key, value]) => `    ${key}: ${quote(value)}`),
    "spec:",
    `  nodeName: ${quote(pod.nodeName)}`,
    `  serviceAccountName: ${quote(pod.serviceAccount)}`,
    ...(pod.hostNetwork ? ["  hostNetwork: true"] : []),
    "  containers:",
    "    - name: app",
    "      image: lab",
    "status:",
    `  phase: ${pod.phase}`,
    `  qosClass: ${pod.qos}`,
    ...pod.addresses.slice(0, 1).map((address) => `  podIP: ${quote(address)}`),
    ...(pod.addresses.length === 0 ? [] : ["  podIPs:"]),
    ...pod.addresses.map((address) => `    - ip: ${quote(address)}`),
  ];
  return lines.join("\n") + "\n";
}

// A JSON string is a YAML double-quoted scalar, so an annotation "true" stays a string.
const quote = (text: string) => JSON.stringify(text);
