/**
 * The registry: what the other nodes must know about our enrolled pods, and we about theirs. It
 * travels as EndpointSlices in the gateway's namespace, one list for each node and address family.
 */

import {
  addressFamily,
  canonicalAddress,
  formatAddress,
  parseAddress,
  specialAddress,
} from "../addresses.ts";
import {
  GATEWAY_NAMESPACE,
  IDENTITIES_ANNOTATION,
  REGISTRY_LABEL,
  TUNNEL_PORT,
} from "../constants.ts";
import { parseSpiffeId } from "../identity/spiffe.ts";
import { isDnsLabel, isDnsSubdomain, isPodUid, quoted } from "../names.ts";
import { compare } from "../order.ts";
import type { RegistryEndpoint, RegistrySlice } from "./objects.ts";

/** One pod that must be encrypted, as its node's agent publishes it. */
export interface RegistryEntry {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  /** SPIFFE ID that a peer must find in the pod's certificate. */
  readonly identity: string;
  readonly node: string;
  /** Canonical text. */
  readonly addresses: readonly string[];
  /**
   * The pod can be served now. While it cannot, its peers wait for it, then refuse; they never send
   * in clear.
   */
  readonly ready: boolean;
}

/** Who is expected behind an address. The handshake decides whether it is so. */
export interface Peer {
  /** Canonical text. */
  readonly address: string;
  /** SPIFFE ID. */
  readonly identity: string;
  readonly uid: string;
  /** `namespace/name`. */
  readonly pod: string;
  readonly node: string;
  /** The slice that says so, `namespace/name`. */
  readonly slice: string;
  /** Its node's agent can serve it now. */
  readonly ready: boolean;
}

/** What one slice of the registry says, as far as it can be believed. */
export interface RegistryPart {
  /** `namespace/name`. */
  readonly slice: string;
  /** That published it. */
  readonly node: string;
  readonly peers: readonly Peer[];
  readonly refused: readonly RefusedEntry[];
  /** An earlier agent has believed all of it; it is not known any more what it was held against. */
  readonly wasBelieved?: boolean;
}

/** An endpoint, or a whole slice (then without `uid`), that was not believed. */
export interface RefusedEntry {
  /** Slice name. */
  readonly slice: string;
  readonly uid?: string;
  readonly reason: string;
  /** Canonical text: where there may be a pod of that node all the same. */
  readonly addresses: readonly string[];
}

/** An EndpointSlice of discovery.k8s.io/v1, as far as the registry uses one. */
export interface EndpointSliceObject {
  apiVersion: "discovery.k8s.io/v1";
  kind: "EndpointSlice";
  metadata: {
    name: string;
    namespace: string;
    labels: Record<string, string>;
    annotations: Record<string, string>;
  };
  addressType: "IPv4" | "IPv6";
  endpoints: {
    addresses: string[];
    conditions: { ready: boolean };
    nodeName: string;
    targetRef: { kind: "Pod"; namespace: string; name: string; uid: string };
  }[];
  ports: { name: string; port: number; protocol: "TCP" }[];
}

/**
 * The whole registry of one node as EndpointSlices. The same entries in any order give the same
 * slices, so that comparing them tells whether there is anything to write.
 *
 * @throws {TypeError} when the node's name cannot be a label value, or an entry is another node's.
 */
export function slicesOf(node: string, entries: readonly RegistryEntry[]): EndpointSliceObject[] {
  requireNodeName(node);
  const sorted = [...entries].sort((a, b) => compare(a.uid, b.uid));
  const foreign = sorted.find((entry) => entry.node !== node);
  if (foreign !== undefined) {
    throw new TypeError(
      `Cannot publish ${foreign.namespace}/${foreign.name}: it runs on ${quoted(foreign.node)}`,
    );
  }
  return ([4, 6] as const).flatMap((family) => {
    const pods = sorted.flatMap((entry) =>
      [...entry.addresses]
        .filter((address) => addressFamily(parseAddress(address)) === family)
        .sort(compare)
        .map((address) => ({ entry, address }))
    );
    const count = Math.ceil(pods.length / MAX_ENDPOINTS);
    return Array.from({ length: count }, (_, i) => {
      const part = pods.slice(i * MAX_ENDPOINTS, (i + 1) * MAX_ENDPOINTS);
      return sliceOf(node, family, i, part);
    });
  });
}

/**
 * What stays of one of a node's slices when its last pod has left: who reads it knows that they
 * have, while of a slice that is not there nobody knows whether somebody has deleted it. Undefined
 * for a name that {@link slicesOf} gives to none.
 */
export function emptiedSlice(node: string, name: string): EndpointSliceObject | undefined {
  const [, family, index = ""] = /-ipv([46])-(\d{1,6})$/.exec(name) ?? [];
  const empty = emptySlice(node, family === "4" ? 4 : 6, Number(index));
  return empty.metadata.name === name ? empty : undefined;
}

/** One of a node's slices, by its family and its number, without pods. */
export function emptySlice(node: string, family: 4 | 6, index: number): EndpointSliceObject {
  return sliceOf(node, family, index, []);
}

/**
 * The peers in a slice of the registry that can be believed, and why the others are not. What an
 * agent of one node publishes is bounded by what it may say: pods on that node, identities of our
 * trust domain in the pod's own namespace, addresses that a pod can have.
 */
export function partOf(slice: RegistrySlice, trustDomain: string): RegistryPart {
  const key = `${slice.namespace}/${slice.name}`;
  const node = isDnsSubdomain(slice.node) ? shared(slice.node) : quoted(slice.node);
  const identities = identitiesOf(slice);
  if (typeof identities === "string") {
    // What somebody writes into his own namespace says nothing of anybody.
    const said = slice.namespace === GATEWAY_NAMESPACE ? slice.endpoints : [];
    const addresses = said.flatMap(possibleAddresses);
    const refused = [{ slice: slice.name, reason: identities, addresses }];
    return { slice: key, node, peers: [], refused };
  }
  const peers = new Map<string, Peer>();
  const refused: RefusedEntry[] = [];
  for (const endpoint of slice.endpoints) {
    const peer = peerOf(key, slice, endpoint, identities, trustDomain);
    if (typeof peer !== "string") {
      peers.set(`${peer.address} ${peer.uid}`, peer);
      continue;
    }
    const { uid } = endpoint.targetRef;
    refused.push({
      slice: slice.name,
      reason: peer,
      addresses: possibleAddresses(endpoint),
      ...(isPodUid(uid) ? { uid } : {}),
    });
  }
  return { slice: key, node, peers: [...peers.values()], refused };
}

/**
 * @throws {TypeError} unless `node` is a node name that fits a label value (and so a file name).
 */
export function requireNodeName(node: string): void {
  // A node name may have 253 characters, a label value 63; kubelet's own hostname label has the
  // same limit.
  if (isDnsSubdomain(node) && node.length <= 63) return;
  throw new TypeError(
    `Cannot use ${quoted(node)} as a node name: need at most 63 of a-z, 0-9, "-" and "."`,
  );
}

function sliceOf(
  node: string,
  family: 4 | 6,
  index: number,
  pods: { entry: RegistryEntry; address: string }[],
): EndpointSliceObject {
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: `registry-${node}-ipv${family}-${index}`,
      namespace: GATEWAY_NAMESPACE,
      labels: { [REGISTRY_LABEL]: node, [MANAGED_BY_LABEL]: "kube-gateway.io" },
      annotations: {
        [IDENTITIES_ANNOTATION]: JSON.stringify(
          Object.fromEntries(pods.map(({ entry }) => [entry.uid, entry.identity])),
        ),
      },
    },
    addressType: `IPv${family}`,
    endpoints: pods.map(({ entry: { namespace, name, uid, ready }, address }) => ({
      addresses: [address],
      conditions: { ready },
      nodeName: node,
      targetRef: { kind: "Pod", namespace, name, uid },
    })),
    ports: [{ name: PORT_NAME, port: TUNNEL_PORT, protocol: "TCP" }],
  };
}

/** The slice's UID → SPIFFE ID, or why the whole slice is refused. */
function identitiesOf(slice: RegistrySlice): Map<string, unknown> | string {
  if (slice.namespace !== GATEWAY_NAMESPACE) {
    return `in namespace ${quoted(slice.namespace)}, the registry is in ${GATEWAY_NAMESPACE}`;
  }
  if (!isDnsSubdomain(slice.node) || slice.node.length > 63) {
    return `its label's value ${quoted(slice.node)} is no node name`;
  }
  if (slice.addressType !== "IPv4" && slice.addressType !== "IPv6") {
    return `address type ${quoted(slice.addressType)}`;
  }
  if (slice.endpoints.length > MAX_ENDPOINTS) {
    return `${slice.endpoints.length} endpoints, at most ${MAX_ENDPOINTS} are possible`;
  }
  const [port] = slice.ports;
  const isTunnel = slice.ports.length === 1 && port?.name === PORT_NAME &&
    port.port === TUNNEL_PORT && (port.protocol ?? "TCP") === "TCP";
  if (!isTunnel) return `its ports are not just ${PORT_NAME} ${TUNNEL_PORT}/TCP`;
  const text = slice.annotations[IDENTITIES_ANNOTATION];
  if (text === undefined) return `no annotation ${IDENTITIES_ANNOTATION}`;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return new Map(Object.entries(value));
    }
  } catch { /* the reason below says as much as the parser would */ }
  return `annotation ${IDENTITIES_ANNOTATION} is no JSON object`;
}

/** The peer that an endpoint stands for, or why it is refused. */
function peerOf(
  key: string,
  slice: RegistrySlice,
  endpoint: RegistryEndpoint,
  identities: Map<string, unknown>,
  trustDomain: string,
): Peer | string {
  const { kind, namespace, name, uid } = endpoint.targetRef;
  if (kind !== "Pod") return `target kind ${quoted(kind)}, not Pod`;
  if (!isPodUid(uid)) return `target UID ${quoted(uid)}`;
  if (!isDnsLabel(namespace)) return `target namespace ${quoted(namespace)}`;
  if (!isDnsSubdomain(name)) return `target name ${quoted(name)}`;
  if (endpoint.nodeName !== slice.node) {
    return `on node ${quoted(endpoint.nodeName)}, but published by ${slice.node}`;
  }
  const [address, ...others] = endpoint.addresses;
  if (address === undefined || others.length > 0) {
    return `${endpoint.addresses.length} addresses, not one`;
  }
  const badAddress = refuseAddress(address, slice.addressType);
  if (badAddress !== undefined) return badAddress;

  const identity = identities.get(uid);
  if (typeof identity !== "string") return "no identity";
  try {
    const parsed = parseSpiffeId(new TextEncoder().encode(identity), trustDomain);
    if (parsed.namespace !== namespace) {
      return `identity of namespace ${parsed.namespace} for a pod in ${namespace}`;
    }
  } catch (error) {
    return (error as Error).message;
  }
  return {
    address,
    identity: shared(identity),
    uid,
    pod: `${namespace}/${name}`,
    node: shared(slice.node),
    slice: key,
    ready: endpoint.ready,
  };
}

function refuseAddress(text: string, addressType: string): string | undefined {
  let bytes: Uint8Array;
  try {
    bytes = parseAddress(text);
  } catch {
    return `${quoted(text)} is no IP address`;
  }
  if (formatAddress(bytes) !== text) return `address ${quoted(text)} is not in canonical form`;
  if (`IPv${addressFamily(bytes)}` !== addressType) return `address ${text} is not ${addressType}`;
  const special = specialAddress(bytes);
  return special === undefined ? undefined : `address ${text} is ${special}`;
}

/** Those that a pod can have. */
function possibleAddresses({ addresses }: RegistryEndpoint): string[] {
  return addresses.map(canonicalAddress).filter((address) => address !== undefined)
    .filter((address) => specialAddress(parseAddress(address)) === undefined);
}

/** One copy of a text that many peers have: JSON gives each its own. */
function shared(text: string): string {
  const known = SHARED.get(text);
  if (known !== undefined) return known;
  if (SHARED.size >= MAX_SHARED) SHARED.clear();
  SHARED.set(text, text);
  return text;
}

const SHARED = new Map<string, string>();
const MAX_SHARED = 20_000;

/** Tells Kubernetes' own controllers that the slice is none of theirs (discovery.k8s.io/v1). */
const MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by";

const MAX_ENDPOINTS = 100;
const PORT_NAME = "tunnel";
