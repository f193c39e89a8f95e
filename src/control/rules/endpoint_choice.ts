/** Which endpoints of a Service a node's connections may go to, as kube-proxy decides it. */
import type { Service, ServiceEndpoint, ServiceEndpoints } from "../../cluster/services.ts";

/** Where the client is. */
export interface Locality {
  readonly node: string;
  /** Of the Node's label topology.kubernetes.io/zone; undefined when it has none. */
  readonly zone: string | undefined;
}

/** One of a Service's addresses and ports, and where its connections may go. */
export interface Frontend {
  /** Canonical text. */
  readonly address: string;
  readonly port: number;
  readonly affinitySeconds: number;
  /** Sorted, without duplicates; empty when there is nothing to connect to. */
  readonly backends: readonly Backend[];
}

export interface Backend {
  /** Canonical text. */
  readonly address: string;
  readonly port: number;
}

/** The frontends of a Service, one for each of its addresses and ports. */
export function frontendsOf(
  service: Service,
  slices: readonly ServiceEndpoints[],
  locality: Locality,
): Frontend[] {
  return service.clusterIps.flatMap((address) =>
    service.ports.map(({ name, port }) => ({
      address,
      port,
      affinitySeconds: service.affinitySeconds,
      backends: backendsOf(service, name, familyOf(address), slices, locality),
    }))
  );
}

/** Those that can be served now, or all when none can: the others are waited for. */
export function preferReady(
  backends: readonly Backend[],
  isWaitedFor: (address: string) => boolean,
): readonly Backend[] {
  const ready = backends.filter(({ address }) => !isWaitedFor(address));
  return ready.length === 0 ? backends : ready;
}

function backendsOf(
  { localOnly }: Service,
  portName: string,
  family: 4 | 6,
  slices: readonly ServiceEndpoints[],
  locality: Locality,
): Backend[] {
  const all = slices.flatMap(({ ports, endpoints }) => {
    const port = ports.find(({ name }) => name === portName)?.port;
    if (port === undefined) return [];
    return endpoints
      .filter(({ address, state }) => state !== "down" && familyOf(address) === family)
      .map((endpoint) => ({ ...endpoint, port }));
  });
  const eligible = localOnly ? all.filter(({ node }) => node === locality.node) : all;
  const ready = eligible.filter(({ state }) => state === "ready");
  // Terminating ones that still serve are better than none (KEP-1669).
  const usable = ready.length === 0 ? eligible : localOnly ? ready : near(ready, locality);
  const byText = new Map(
    usable.map(({ address, port }) => [`${address} ${port}`, { address, port }]),
  );
  return [...byText.keys()].sort().flatMap((text) => byText.get(text) ?? []);
}

/**
 * Topology hints (KEP-3015, KEP-2433), nodes before zones: heeded when every endpoint has them and
 * at least one is for us; otherwise they are incomplete.
 */
function near<E extends ServiceEndpoint>(endpoints: E[], { node, zone }: Locality): E[] {
  return hintedFor(node, endpoints, ({ nodes }) => nodes) ??
    hintedFor(zone, endpoints, ({ zones }) => zones) ?? endpoints;
}

function hintedFor<E extends ServiceEndpoint>(
  place: string | undefined,
  endpoints: E[],
  hints: (endpoint: E) => readonly string[],
): E[] | undefined {
  if (place === undefined || endpoints.some((each) => hints(each).length === 0)) return undefined;
  const hinted = endpoints.filter((each) => hints(each).includes(place));
  return hinted.length === 0 ? undefined : hinted;
}

/**
 * Tells a colon from a dotted quad, which is enough for canonical text and much cheaper than
 * reading it.
 */
function familyOf(address: string): 4 | 6 {
  return address.includes(":") ? 6 : 4;
}
