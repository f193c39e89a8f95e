/**
 * The TypeScript twins of bpf/maps.h: which maps there are and how their keys and values lie in
 * memory. maps_test.ts compares every number here with the compiled object's BTF.
 */
import { BpfMap } from "../native/bpf_map.ts";
import type { Endpoint } from "../native/socket_address.ts";

/** Offsets and sizes in bytes, by struct and field. */
export const LAYOUT = {
  address: { size: 16 },
  endpoint: { size: 20, address: 0, port: 16 },
  socket_key: { size: 32, netns_cookie: 0, endpoint: 8 },
  peer: { size: 12, identity: 0, generation: 4, ready: 8, slice: 10 },
  slice: { size: 336, text: 0 },
  identity: { size: 592, text: 0 },
  pod: { size: 36, own: 0, outbound_port: 32 },
  frontend: { size: 12, set: 0, count: 4, affinity: 8 },
  backend_key: { size: 8, set: 0, index: 4 },
  affinity: { size: 32, backend: 0, used: 24 },
  range: { size: 20, prefix_length: 0, address: 4 },
  egress_rule: { size: 36, every_port: 0, count: 2, ports: 4 },
  refusal_key: { size: 16, cgroup: 0, reason: 8 },
  refusals: { size: 48, count: 0, netns_cookie: 8, at: 16, destination: 24, process: 44 },
  guarded_device: { size: 16, pod: 0, egress: 8, inbound: 12 },
  guard_key: { size: 32, pod: 0, peer: 8, protocol: 24 },
  guard_traffic: { size: 32, packets: 0, bytes: 8, payload: 16, dropped: 24 },
  guard_count: {
    size: 128,
    seen: 0,
    first: 64,
    last: 72,
    source: 80,
    destination: 100,
    peers: 120,
  },
  refusal: { size: 4, by_rules: 0 },
  routing_state: { size: 4, known: 0 },
  origin: { size: 40, client: 0, application: 20 },
} as const;

/** Name, key and value of every map that the agent reads or writes. */
export const MAPS = {
  peers: { key: "address", value: "peer" },
  identities: { key: 4, value: "identity" },
  slices: { key: 4, value: "slice" },
  pods: { key: 8, value: "pod" },
  decided: { key: 8, value: 4 },
  flows: { key: "socket_key", value: "endpoint" },
  origins: { key: "socket_key", value: "origin" },
  frontends: { key: "endpoint", value: "frontend" },
  backends: { key: "backend_key", value: "endpoint" },
  affinities: { key: "socket_key", value: "affinity" },
  egress_rules: { key: "range", value: "egress_rule" },
  refused_ranges: { key: "range", value: "refusal" },
  routing_state: { key: 4, value: "routing_state" },
  node_addresses: { key: "address", value: 4 },
  kernel_refusals: { key: "refusal_key", value: "refusals" },
  guarded_devices: { key: 4, value: "guarded_device" },
  guard_counts: { key: "guard_key", value: "guard_count" },
  listeners: { key: 4, value: 4 },
} as const;

/** Pinned like the others, but used by the programs only. */
export const SOCKET_STORAGES = ["dialled_sockets", "served_sockets"] as const;

export type MapName = keyof typeof MAPS;

/** A map of this node's object, by its open descriptor. */
export function openMap(name: MapName, descriptor: number): BpfMap {
  const { key, value } = MAPS[name];
  return new BpfMap(name, descriptor, sizeOf(key), sizeOf(value));
}

function sizeOf(type: number | keyof typeof LAYOUT): number {
  return typeof type === "number" ? type : LAYOUT[type].size;
}

/** `struct peer`. */
export interface PeerValue {
  /** Key of the `identities` map. */
  readonly identity: number;
  readonly generation: number;
  /** Its node's agent can serve it now. */
  readonly ready: boolean;
  /** Key of the `slices` map; 0 when it is not known. */
  readonly slice: number;
}

export function encodePeer(
  { identity, generation, ready, slice }: PeerValue,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LAYOUT.peer.size);
  const view = new DataView(bytes.buffer);
  view.setUint32(LAYOUT.peer.identity, identity, true);
  view.setUint32(LAYOUT.peer.generation, generation, true);
  view.setUint16(LAYOUT.peer.ready, Number(ready), true);
  view.setUint16(LAYOUT.peer.slice, slice, true);
  return bytes;
}

export function decodePeer(bytes: Uint8Array<ArrayBuffer>): PeerValue {
  const view = new DataView(bytes.buffer);
  return {
    identity: view.getUint32(LAYOUT.peer.identity, true),
    generation: view.getUint32(LAYOUT.peer.generation, true),
    ready: view.getUint16(LAYOUT.peer.ready, true) !== 0,
    slice: view.getUint16(LAYOUT.peer.slice, true),
  };
}

/** `struct frontend`. */
export interface FrontendValue {
  /** Of the `backends` map. */
  readonly set: number;
  /** How many backends the set has. */
  readonly count: number;
  /** Seconds; 0: a client need not stay with its backend. */
  readonly affinity: number;
}

export function encodeFrontend({ set, count, affinity }: FrontendValue): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LAYOUT.frontend.size);
  const view = new DataView(bytes.buffer);
  view.setUint32(LAYOUT.frontend.set, set, true);
  view.setUint32(LAYOUT.frontend.count, count, true);
  view.setUint32(LAYOUT.frontend.affinity, affinity, true);
  return bytes;
}

export function decodeFrontend(bytes: Uint8Array<ArrayBuffer>): FrontendValue {
  const view = new DataView(bytes.buffer);
  return {
    set: view.getUint32(LAYOUT.frontend.set, true),
    count: view.getUint32(LAYOUT.frontend.count, true),
    affinity: view.getUint32(LAYOUT.frontend.affinity, true),
  };
}

/** A key of the `backends` map. */
export function encodeBackendKey(set: number, index: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Uint32Array([set, index]).buffer);
}

/** The set of a key of the `backends` map. */
export function setOf(key: Uint8Array<ArrayBuffer>): number {
  return new DataView(key.buffer).getUint32(LAYOUT.backend_key.set, true);
}

/** `struct affinity`. */
export interface AffinityValue {
  readonly backend: Endpoint;
  /** Milliseconds since 1970. */
  readonly used: number;
}

export function encodeAffinity({ backend, used }: AffinityValue): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LAYOUT.affinity.size);
  bytes.set(encodeEndpoint(backend), LAYOUT.affinity.backend);
  new DataView(bytes.buffer).setBigUint64(LAYOUT.affinity.used, BigInt(used), true);
  return bytes;
}

export function decodeAffinity(bytes: Uint8Array<ArrayBuffer>): AffinityValue {
  return {
    backend: decodeEndpoint(bytes),
    used: Number(new DataView(bytes.buffer).getBigUint64(LAYOUT.affinity.used, true)),
  };
}

/** A key of the `egress_rules` map: 16 address bytes and how many of their 128 bits count. */
export function encodeRange(address: Uint8Array, prefixLength: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LAYOUT.range.size);
  new DataView(bytes.buffer).setUint32(LAYOUT.range.prefix_length, prefixLength, true);
  bytes.set(address, LAYOUT.range.address);
  return bytes;
}

/** How many ports an egress rule can name (bpf/maps.h, MAX_RULE_PORTS). */
export const MAX_RULE_PORTS = 16;

/** `struct egress_rule`. @throws {RangeError} for more than MAX_RULE_PORTS ports. */
export function encodeEgressRule(ports: "every" | readonly number[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LAYOUT.egress_rule.size);
  const view = new DataView(bytes.buffer);
  if (ports === "every") {
    view.setUint16(LAYOUT.egress_rule.every_port, 1, true);
    return bytes;
  }
  if (ports.length > MAX_RULE_PORTS) {
    throw new RangeError(`more than ${MAX_RULE_PORTS} ports in an egress rule`);
  }
  view.setUint16(LAYOUT.egress_rule.count, ports.length, true);
  for (const [index, port] of ports.entries()) {
    view.setUint16(LAYOUT.egress_rule.ports + 2 * index, port);
  }
  return bytes;
}

/** `struct refusal`. */
export function encodeRefusal({ byRules }: { byRules: boolean }): Uint8Array<ArrayBuffer> {
  return encodeNumber(byRules ? 1 : 0);
}

/** How many entries the kernel's maps take (bpf/maps.h, max_entries). */
export const CAPACITY = {
  peers: 524_288,
  frontends: 262_144,
  backends: 1_048_576,
  refused_ranges: 262_144,
} as const;

/** A key of the `identities` map. */
export function encodeNumber(number: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Uint32Array([number]).buffer);
}

export function decodeNumber(bytes: Uint8Array<ArrayBuffer>): number {
  return new DataView(bytes.buffer).getUint32(0, true);
}

/** `struct identity`. @throws {RangeError} for a SPIFFE ID that is longer than any pod's can be. */
export function encodeIdentity(id: string): Uint8Array<ArrayBuffer> {
  return encodeText(id, LAYOUT.identity.size);
}

/** `struct slice`. @throws {RangeError} for longer texts than a node's and a slice's names make. */
export function encodeSlice(text: string): Uint8Array<ArrayBuffer> {
  return encodeText(text, LAYOUT.slice.size);
}

/** The text of a `struct identity` or a `struct slice`. */
export function decodeText(bytes: Uint8Array<ArrayBuffer>): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(bytes.subarray(0, end < 0 ? bytes.length : end));
}

function encodeText(text: string, size: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size);
  const { read, written } = new TextEncoder().encodeInto(text, bytes.subarray(0, -1));
  if (read < text.length) throw new RangeError(`a text of more than ${written} bytes: ${text}`);
  return bytes;
}

/** `struct socket_key`. */
export function encodeSocketKey(cookie: bigint, endpoint: Endpoint): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LAYOUT.socket_key.size);
  new DataView(bytes.buffer).setBigUint64(LAYOUT.socket_key.netns_cookie, cookie, true);
  bytes.set(encodeEndpoint(endpoint), LAYOUT.socket_key.endpoint);
  return bytes;
}

/** The cookie of a `struct socket_key`. */
export function cookieOf(key: Uint8Array<ArrayBuffer>): bigint {
  return new DataView(key.buffer).getBigUint64(LAYOUT.socket_key.netns_cookie, true);
}

/** `struct endpoint`. */
export function encodeEndpoint({ address, port }: Endpoint): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LAYOUT.endpoint.size);
  bytes.set(address, LAYOUT.endpoint.address);
  new DataView(bytes.buffer).setUint16(LAYOUT.endpoint.port, port);
  return bytes;
}

export function decodeEndpoint(bytes: Uint8Array<ArrayBuffer>): Endpoint {
  return {
    address: bytes.slice(LAYOUT.endpoint.address, LAYOUT.endpoint.address + LAYOUT.address.size),
    port: new DataView(bytes.buffer).getUint16(LAYOUT.endpoint.port),
  };
}

/** `struct origin`: whose a connection from the inbound relay is, and to where. */
export function encodeOrigin(client: Endpoint, application: Endpoint): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LAYOUT.origin.size);
  bytes.set(encodeEndpoint(client), LAYOUT.origin.client);
  bytes.set(encodeEndpoint(application), LAYOUT.origin.application);
  return bytes;
}

/** A key of the `pods` map, a namespace's cookie, or of `decided`, a cgroup's ID. */
export function encodeId(id: bigint): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new BigUint64Array([id]).buffer);
}

export function decodeId(key: Uint8Array<ArrayBuffer>): bigint {
  return new DataView(key.buffer).getBigUint64(0, true);
}

/** `struct pod`; an address that the pod does not have is undefined. */
export function encodePod(pod: {
  ipv4: Uint8Array | undefined;
  ipv6: Uint8Array | undefined;
  outboundPort: number;
}): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LAYOUT.pod.size);
  if (pod.ipv4) bytes.set(pod.ipv4, LAYOUT.pod.own);
  if (pod.ipv6) bytes.set(pod.ipv6, LAYOUT.pod.own + LAYOUT.address.size);
  new DataView(bytes.buffer).setUint16(LAYOUT.pod.outbound_port, pod.outboundPort);
  return bytes;
}

/** `enum strictness`, bpf/maps.h. */
const STRICTNESS = { permissive: 0, strict: 1, "dry-run": 2 } as const;

/** Whether plain connections are refused, or those that would be are counted. */
export type Strictness = keyof typeof STRICTNESS;

/** `struct guarded_device`. */
export function encodeGuardedDevice(
  { id, egress, inbound }: {
    readonly id: bigint;
    readonly egress: Strictness;
    readonly inbound: Strictness;
  },
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LAYOUT.guarded_device.size);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(LAYOUT.guarded_device.pod, id, true);
  view.setUint32(LAYOUT.guarded_device.egress, STRICTNESS[egress], true);
  view.setUint32(LAYOUT.guarded_device.inbound, STRICTNESS[inbound], true);
  return bytes;
}
