import type { Pod } from "../../lab/pod.ts";

/** In the order in which a round runs them. */
export const CONTENDERS = [
  "direct",
  "gateway",
  "haproxy",
  "haproxy-resumed",
  "nginx",
  "stunnel",
] as const;

export type ContenderName = typeof CONTENDERS[number];

export const TITLES: Record<ContenderName, string> = {
  direct: "direct",
  gateway: "kube-gateway",
  haproxy: "haproxy",
  "haproxy-resumed": "haproxy, resumed",
  nginx: "nginx",
  stunnel: "stunnel",
};

/** The applications' ports in every server pod. */
export const BULK_PORT = 5201;
export const HTTP_PORT = 8080;
export const ECHO_PORT = 7007;
export const PORTS = [BULK_PORT, HTTP_PORT, ECHO_PORT] as const;

/** Where a pair of proxies speaks TLS, and where the client's application finds its own one. */
export const tlsPort = (port: number) => port + 10_000;
export const plainPort = (port: number) => port + 12_000;

/** A client's pod and a server's. */
export type Pair = readonly [client: Pod, server: Pod];

/**
 * A contender's pods. The neighbours are other pods, or the same where the proxies are these pods'
 * own.
 */
export interface Pods {
  readonly own: Pair;
  readonly neighbours: Pair;
}

/** A client pod, and where its applications connect to. */
export interface Way {
  readonly client: Pod;
  address(port: number): { host: string; port: number };
}

/** To the server's own address. */
export function wayTo([client, server]: Pair): Way {
  return { client, address: (port) => ({ host: server.ipv4 ?? "", port }) };
}

/** One way from a client pod on one node to a server pod on another: what is compared. */
export interface Contender extends Way {
  readonly name: ContenderName;
  /** Another pod's way, or the same one's, through the same processes. */
  readonly neighbour: Way;
  /** What its proxies run in, of both sides, and nothing else does. */
  readonly cgroups: readonly string[];
  /** Begins again with new processes, which remember nothing. */
  restart(): Promise<void>;
}
