import type { Lab } from "./lab.ts";
import type { Pod } from "./pod.ts";

/** A Service's endpoint, ready unless something else is said. */
export interface LabEndpoint {
  pod: Pod;
  ready?: boolean;
  serving?: boolean;
  terminating?: boolean;
  /** Topology hints. */
  zones?: string[];
}

export interface LabService {
  name: string;
  namespace?: string;
  /** One of each family at most. */
  clusterIps: string[];
  /** The Service's port to the pods' port. */
  ports: Record<number, number>;
  endpoints: LabEndpoint[];
  /** Further fields of the Service's spec. */
  spec?: Record<string, unknown>;
}

/**
 * Writes a Service and its EndpointSlices, one for each family, into the lab's cluster directory at
 * once.
 */
export async function writeService(lab: Lab, service: LabService): Promise<void> {
  const { name, namespace = "default" } = service;
  await writeServices(lab, `service-${namespace}-${name}.json`, [service]);
}

/** The same for several Services in one file, which is one change of the cluster. */
export async function writeServices(
  lab: Lab,
  fileName: string,
  services: readonly LabService[],
): Promise<void> {
  const items = services.flatMap(itemsOf);
  await lab.write(fileName, JSON.stringify({ apiVersion: "v1", kind: "List", items }));
}

function itemsOf(service: LabService): unknown[] {
  const { name, namespace = "default", clusterIps, ports, spec = {} } = service;
  const named = Object.entries(ports).map(([port, target], index) => ({
    name: `port-${index}`,
    port: Number(port),
    target,
  }));
  const families = ["IPv4", "IPv6"] as const;
  return [
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name, namespace },
      spec: {
        type: "ClusterIP",
        clusterIP: clusterIps[0],
        clusterIPs: clusterIps,
        ports: named.map(({ name, port, target }) => ({
          name,
          port,
          targetPort: target,
          protocol: "TCP",
        })),
        ...spec,
      },
    },
    ...families.map((addressType) => ({
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: {
        name: `${name}-${addressType.toLowerCase()}`,
        namespace,
        labels: { "kubernetes.io/service-name": name },
      },
      addressType,
      endpoints: service.endpoints.flatMap(({ pod, zones, ready = true, ...conditions }) => {
        const address = addressType === "IPv4" ? pod.ipv4 : pod.ipv6;
        return address === undefined ? [] : [{
          addresses: [address],
          conditions: { ready, ...conditions },
          nodeName: pod.node.name,
          targetRef: { kind: "Pod", namespace: pod.namespace, name: pod.name, uid: pod.uid },
          ...(zones === undefined ? {} : { hints: { forZones: zones.map((name) => ({ name })) } }),
        }];
      }),
      ports: named.map(({ name, target }) => ({ name, port: target, protocol: "TCP" })),
    })),
  ];
}
