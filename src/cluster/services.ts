/**
 * What routing needs of Services and of the EndpointSlices that belong to them; nothing else is
 * kept.
 */
import * as v from "valibot";
import { canonicalAddress, parseAddress, specialAddress } from "../addresses.ts";
import { parseObject } from "./parse.ts";

/** A Service with addresses of its own. */
export interface Service {
  readonly namespace: string;
  readonly name: string;
  /** Milliseconds since 1970; 0 when it is not said. */
  readonly created: number;
  /** Canonical text; at most one of a family. */
  readonly clusterIps: readonly string[];
  /** TCP only. */
  readonly ports: readonly { readonly name: string; readonly port: number }[];
  /** Seconds for which a client stays with an endpoint; 0: it need not. */
  readonly affinitySeconds: number;
  /** Only endpoints on the client's own node. */
  readonly localOnly: boolean;
}

/** The endpoints that one EndpointSlice gives a Service. */
export interface ServiceEndpoints {
  readonly namespace: string;
  /** The Service's name. */
  readonly service: string;
  /** TCP only. */
  readonly ports: readonly { readonly name: string; readonly port: number }[];
  readonly endpoints: readonly ServiceEndpoint[];
}

export interface ServiceEndpoint {
  /** Canonical text. */
  readonly address: string;
  readonly state: "ready" | "terminating" | "down";
  readonly node: string;
  /** The zones whose clients should use it; empty: all. */
  readonly zones: readonly string[];
  /** The nodes whose clients should use it; empty: all. */
  readonly nodes: readonly string[];
}

/**
 * The Service in `value`; undefined for one without an address to connect to (headless,
 * ExternalName) or without a TCP port.
 *
 * @throws {ObjectError} when it is no Service.
 */
export function readService(
  value: unknown,
  path: readonly (string | number)[] = [],
): Service | undefined {
  const { metadata, spec } = parseObject(ServiceSchema, value, path);
  const texts = spec.clusterIPs ?? (spec.clusterIP ? [spec.clusterIP] : []);
  const clusterIps = texts.map(ordinaryAddress).filter((text) => text !== undefined);
  const ports = tcpPorts(spec.ports ?? []);
  if (spec.type === "ExternalName" || clusterIps.length === 0 || ports.length === 0) {
    return undefined;
  }
  const isSticky = spec.sessionAffinity === "ClientIP";
  return {
    namespace: metadata.namespace ?? "default",
    name: metadata.name,
    created: Date.parse(metadata.creationTimestamp ?? "") || 0,
    clusterIps,
    ports,
    affinitySeconds: isSticky
      ? spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? DEFAULT_AFFINITY_SECONDS
      : 0,
    localOnly: spec.internalTrafficPolicy === "Local",
  };
}

/**
 * The endpoints in an EndpointSlice; undefined when it belongs to no Service, or has no TCP port or
 * no IP addresses.
 *
 * @throws {ObjectError} when it is no EndpointSlice.
 */
export function readServiceEndpoints(
  value: unknown,
  path: readonly (string | number)[] = [],
): ServiceEndpoints | undefined {
  const { metadata, addressType, endpoints, ports } = parseObject(EndpointsSchema, value, path);
  const service = metadata.labels?.["kubernetes.io/service-name"];
  const tcp = tcpPorts(ports ?? []);
  if (!service || addressType === "FQDN" || tcp.length === 0) return undefined;
  return {
    namespace: metadata.namespace ?? "default",
    service,
    ports: tcp,
    endpoints: (endpoints ?? []).flatMap(({ addresses, conditions, nodeName, hints }) => {
      // The first only, as kube-proxy does (discovery.k8s.io/v1: the others have no meaning).
      const address = ordinaryAddress(addresses[0] ?? "");
      if (address === undefined) return [];
      return {
        address,
        state: stateOf(conditions ?? {}),
        node: nodeName ?? "",
        zones: hints?.forZones?.map(({ name }) => name) ?? EVERYWHERE,
        nodes: hints?.forNodes?.map(({ name }) => name) ?? EVERYWHERE,
      };
    }),
  };
}

/**
 * Canonical text; undefined for what an API server would refuse: a pod's loopback is never a
 * Service's.
 */
function ordinaryAddress(text: string): string | undefined {
  const address = canonicalAddress(text);
  if (address === undefined || specialAddress(parseAddress(address)) !== undefined) {
    return undefined;
  }
  return address;
}

/** discovery.k8s.io/v1 EndpointConditions: nil means ready, serving, and not terminating. */
function stateOf(
  { ready, serving, terminating }: v.InferOutput<typeof ConditionsSchema>,
): ServiceEndpoint["state"] {
  if (ready ?? true) return "ready";
  return (serving ?? true) && terminating ? "terminating" : "down";
}

function tcpPorts(ports: readonly v.InferOutput<typeof PortSchema>[]): Service["ports"] {
  return ports.flatMap(({ name, port, protocol }) =>
    (protocol ?? "TCP") === "TCP" && port ? [{ name: name ?? "", port }] : []
  );
}

const EVERYWHERE: readonly string[] = [];
const DEFAULT_AFFINITY_SECONDS = 10_800; // core/v1 ClientIPConfig

const text = v.nullish(v.pipe(v.string(), v.maxLength(253)));
const MetadataSchema = v.object({
  name: v.pipe(v.string(), v.maxLength(253)),
  namespace: v.optional(v.pipe(v.string(), v.maxLength(63))),
  labels: v.nullish(v.record(v.string(), v.string())),
  creationTimestamp: v.nullish(v.string()),
});
const PortSchema = v.object({
  name: text,
  port: v.nullish(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535))),
  protocol: text,
});
const ConditionsSchema = v.object({
  ready: v.nullish(v.boolean()),
  serving: v.nullish(v.boolean()),
  terminating: v.nullish(v.boolean()),
});
/**
 * Of TCP, UDP and SCTP: the API server has no limit but an object's size. How many are redirected
 * is routing's affair.
 */
const MOST_PORTS = 3 * 65_535;
const ServiceSchema = v.object({
  metadata: MetadataSchema,
  spec: v.object({
    type: text,
    clusterIP: text,
    clusterIPs: v.nullish(v.pipe(v.array(v.string()), v.maxLength(2))),
    ports: v.nullish(v.pipe(v.array(PortSchema), v.maxLength(MOST_PORTS))),
    sessionAffinity: text,
    sessionAffinityConfig: v.nullish(v.object({
      clientIP: v.nullish(v.object({ timeoutSeconds: v.nullish(v.number()) })),
    })),
    internalTrafficPolicy: text,
  }),
});
const HintsSchema = v.nullish(v.pipe(v.array(v.object({ name: v.string() })), v.maxLength(8)));
const EndpointsSchema = v.object({
  metadata: MetadataSchema,
  addressType: v.string(),
  endpoints: v.nullish(v.pipe(
    v.array(v.object({
      addresses: v.pipe(v.array(v.string()), v.maxLength(100)),
      conditions: v.nullish(ConditionsSchema),
      nodeName: text,
      hints: v.nullish(v.object({
        forZones: HintsSchema,
        forNodes: HintsSchema,
      })),
    })),
    v.maxLength(1000),
  )),
  ports: v.nullish(v.pipe(v.array(PortSchema), v.maxLength(20_000))),
});
