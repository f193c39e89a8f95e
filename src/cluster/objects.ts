import { canonicalAddress } from "../addresses.ts";
import {
  ALLOW_ANNOTATION,
  ANNOTATION,
  EGRESS_ANNOTATION,
  FLOOR_ANNOTATION,
  GRACE_ANNOTATION,
  IDENTITIES_ANNOTATION,
  INBOUND_ANNOTATION,
  REGISTRY_LABEL,
  SECURED_CONDITION,
} from "../constants.ts";
import { quoted } from "../names.ts";
import { MAX_POLICY_LENGTH } from "../policy.ts";
import { type DenyList, readDenyList } from "./deny_list.ts";
import { type NodeFacts, readNode } from "./nodes.ts";
import { ObjectError, parseObject } from "./parse.ts";
import {
  KindSchema,
  LabelledSchema,
  NamedSchema,
  NamespaceSchema,
  PodSchema,
  RuntimeClassSchema,
  SliceSchema,
} from "./schemas.ts";
import {
  readService,
  readServiceEndpoints,
  type Service,
  type ServiceEndpoints,
} from "./services.ts";

/** What is kept of a Kubernetes Pod. */
export interface Pod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  /** Empty until the pod is scheduled. */
  readonly nodeName: string;
  /**
   * Empty when the object names none, which only the mirror of a static pod does in an API server.
   */
  readonly serviceAccount: string;
  /** Only the keys that mean something here; a value that is too long is cut and ends with `…`. */
  readonly annotations: Readonly<Record<string, string>>;
  /** Canonical text, at most two, empty until the pod has its sandbox. */
  readonly addresses: readonly string[];
  readonly hostNetwork: boolean;
  /** `spec.runtimeClassName`; absent: the node's usual runtime. */
  readonly runtimeClass?: string;
  /** `Pending` when the object has no status yet. */
  readonly phase: string;
  /** Has a deletion timestamp; its containers may run on for its grace period. */
  readonly deleting: boolean;
  /** What an agent has said of the pod in its status; absent when none has. */
  readonly secured?: SecuredCondition;
}

/** The pod condition `kube-gateway.io/Secured`. */
export interface SecuredCondition {
  readonly status: "True" | "False";
  readonly reason: string;
  readonly message: string;
  /** RFC 3339; when `status` became what it is. */
  readonly since: string;
}

/** What is kept of a Kubernetes Namespace. */
export interface Namespace {
  readonly name: string;
  /** The gateway's: what its pods have for theirs where they have none. Cut as a pod's are. */
  readonly annotations: Readonly<Record<string, string>>;
  readonly deleting: boolean;
}

/** What is kept of an EndpointSlice of the registry, not yet trusted: `partOf` judges it. */
export interface RegistrySlice {
  readonly namespace: string;
  readonly name: string;
  /** The registry label's value: the node whose agent is said to have published it. */
  readonly node: string;
  readonly addressType: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly endpoints: readonly RegistryEndpoint[];
  readonly ports: readonly { name?: string; port?: number; protocol?: string }[];
}

/** One endpoint of a registry slice. */
export interface RegistryEndpoint {
  readonly addresses: readonly string[];
  readonly ready: boolean;
  readonly nodeName: string;
  readonly targetRef: { kind: string; namespace: string; name: string; uid: string };
}

/** One object of those that are kept, with where it stands in its document. */
export type KeptObject =
  & { readonly path: readonly (string | number)[] }
  & (
    | { readonly kind: "Pod"; readonly pod: Pod }
    | { readonly kind: "Namespace"; readonly namespace: Namespace }
    | { readonly kind: "Node"; readonly node: NodeFacts }
    | { readonly kind: "ConfigMap"; readonly denied: DenyList }
    | { readonly kind: "RuntimeClass"; readonly name: string; readonly handler: string }
    | { readonly kind: "EndpointSlice"; readonly slice: RegistrySlice }
    | { readonly kind: "Service"; readonly key: string; readonly service: Service }
    | { readonly kind: "Endpoints"; readonly key: string; readonly endpoints: ServiceEndpoints }
  );

/**
 * The objects in one parsed document (what `kubectl get … -o yaml` prints): a Pod, a Namespace, a
 * Node, a RuntimeClass, a Service, an EndpointSlice, or a list of such. Other kinds are passed
 * over.
 *
 * @throws {ObjectError} for the first object that breaks Kubernetes' rules.
 */
export function readObjects(document: unknown): KeptObject[] {
  const kept: KeptObject[] = [];
  collect(document, [], kept, 0);
  return kept;
}

/** @throws {ObjectError} when `value` is not a valid Pod. */
export function readPod(value: unknown, path: readonly (string | number)[] = []): Pod {
  const { metadata, spec, status } = parseObject(PodSchema, value, path);
  const texts = [status?.podIP ?? "", ...(status?.podIPs ?? []).map(({ ip }) => ip ?? "")];
  const addresses = [...new Set(texts.map(canonicalAddress).filter((text) => text !== undefined))];
  if (addresses.length > MAX_ADDRESSES) {
    throw new ObjectError(
      `Pod ${
        quoted(metadata.name)
      } has ${addresses.length} addresses, at most ${MAX_ADDRESSES} are possible`,
      [...path, "status", "podIPs"],
    );
  }
  return {
    uid: metadata.uid,
    namespace: metadata.namespace ?? "default",
    name: metadata.name,
    nodeName: spec?.nodeName ?? "",
    serviceAccount: spec?.serviceAccountName ?? "",
    annotations: keepAnnotations(metadata.annotations, isPodAnnotation, MAX_ANNOTATION),
    addresses,
    hostNetwork: spec?.hostNetwork ?? false,
    ...(spec?.runtimeClassName ? { runtimeClass: spec.runtimeClassName } : {}),
    phase: status?.phase ?? "Pending",
    deleting: metadata.deletionTimestamp !== undefined,
    ...securedOf(status?.conditions ?? []),
  };
}

/** @throws {ObjectError} when `value` is not a valid Namespace. */
export function readNamespace(
  value: unknown,
  path: readonly (string | number)[] = [],
): Namespace {
  const { metadata } = parseObject(NamespaceSchema, value, path);
  const annotations = keepAnnotations(
    metadata.annotations,
    (key) => key.startsWith(ANNOTATION),
    MAX_ANNOTATION,
  );
  return {
    name: metadata.name,
    annotations,
    deleting: metadata.deletionTimestamp !== undefined,
  };
}

/** A RuntimeClass' name, and its handler's. @throws {ObjectError} when `value` is none. */
export function readRuntimeClass(
  value: unknown,
  path: readonly (string | number)[] = [],
): { readonly name: string; readonly handler: string } {
  const { metadata: { name }, handler } = parseObject(RuntimeClassSchema, value, path);
  return { name, handler };
}

/**
 * The registry slice in `value`, or undefined for an EndpointSlice without the registry's label:
 * the cluster's others are none of ours to judge.
 *
 * @throws {ObjectError} when it has the label and is not a valid EndpointSlice.
 */
export function readSlice(
  value: unknown,
  path: readonly (string | number)[] = [],
): RegistrySlice | undefined {
  const { metadata: { labels } } = parseObject(LabelledSchema, value, path);
  if (labels?.[REGISTRY_LABEL] === undefined) return undefined;
  const { metadata, addressType, endpoints, ports } = parseObject(SliceSchema, value, path);
  return {
    namespace: metadata.namespace ?? "default",
    name: metadata.name,
    node: labels[REGISTRY_LABEL],
    addressType,
    annotations: keepAnnotations(
      metadata.annotations,
      (key) => key.startsWith(ANNOTATION),
      MAX_SLICE_ANNOTATION,
    ),
    endpoints: (endpoints ?? []).map((endpoint) => ({
      addresses: endpoint.addresses,
      ready: endpoint.conditions?.ready ?? true, // discovery.k8s.io/v1: nil means true
      nodeName: endpoint.nodeName ?? "",
      targetRef: { kind: "", namespace: "", name: "", uid: "", ...endpoint.targetRef },
    })),
    ports: ports ?? [],
  };
}

function collect(
  value: unknown,
  path: readonly (string | number)[],
  kept: KeptObject[],
  depth: number,
): void {
  if (value === null || value === undefined) return; // an empty document
  const { kind, items } = parseObject(KindSchema, value, path);
  if (kind.endsWith("List")) {
    // The API server never nests lists; the depth ends recursion through a file's own aliases.
    if (depth > 1) throw new ObjectError("a list in a list in a list", path);
    for (const [i, item] of (items ?? []).entries()) {
      collect(withKind(item, kind), [...path, "items", i], kept, depth + 1);
    }
  } else if (kind === "Pod") kept.push({ kind, path, pod: readPod(value, path) });
  else if (kind === "Namespace") kept.push({ kind, path, namespace: readNamespace(value, path) });
  else if (kind === "Node") kept.push({ kind, path, node: readNode(value, path) });
  else if (kind === "ConfigMap") {
    const denied = readDenyList(value, path);
    if (denied !== undefined) kept.push({ kind, path, denied });
  } else if (kind === "RuntimeClass") {
    kept.push({ kind, path, ...readRuntimeClass(value, path) });
  } else if (kind === "EndpointSlice") {
    const slice = readSlice(value, path);
    if (slice !== undefined) return void kept.push({ kind, path, slice });
    const endpoints = readServiceEndpoints(value, path);
    if (endpoints !== undefined) {
      kept.push({ kind: "Endpoints", path, key: keyOf(value), endpoints });
    }
  } else if (kind === "Service") {
    const service = readService(value, path);
    if (service !== undefined) kept.push({ kind, path, key: keyOf(value), service });
  }
}

function securedOf(
  conditions: readonly {
    type: string;
    status?: string | undefined;
    reason?: string | undefined;
    message?: string | undefined;
    lastTransitionTime?: string | undefined;
  }[],
): Pick<Pod, "secured"> {
  const found = conditions.find(({ type }) => type === SECURED_CONDITION);
  if (found === undefined) return {};
  const { status, reason = "", message = "", lastTransitionTime = "" } = found;
  return {
    secured: {
      status: status === "True" ? "True" : "False",
      reason,
      message,
      since: lastTransitionTime,
    },
  };
}

/** `namespace/name`. */
function keyOf(value: unknown): string {
  const { metadata: { namespace = "default", name } } = parseObject(NamedSchema, value, []);
  return `${namespace}/${name}`;
}

/** The items of a PodList carry no kind of their own in the API server's answers. */
function withKind(item: unknown, listKind: string): unknown {
  if (listKind === "List" || typeof item !== "object" || item === null || "kind" in item) {
    return item;
  }
  return { ...item, kind: listKind.slice(0, -"List".length) };
}

function keepAnnotations(
  annotations: Record<string, string> | undefined,
  wanted: (key: string) => boolean,
  limit: number,
): Record<string, string> {
  const kept: Record<string, string> = {};
  let count = 0;
  for (const [key, value] of Object.entries(annotations ?? {})) {
    if (!wanted(key) || key.length > MAX_ANNOTATION_KEY) continue;
    // One that means something is never lost among those that do not.
    if (!KNOWN_ANNOTATIONS.has(key) && ++count > MAX_ANNOTATIONS) continue;
    // The mark makes a cut value one that nothing accepts.
    const most = key === ALLOW_ANNOTATION ? MAX_POLICY_LENGTH : limit;
    kept[key] = value.length > most ? `${value.slice(0, most)}…` : value;
  }
  return kept;
}

function isPodAnnotation(key: string): boolean {
  return key.startsWith(ANNOTATION) || STATIC_POD_ANNOTATIONS.includes(key);
}

/**
 * Where kubelet writes a static pod's own UID, which names its cgroup; `metadata.uid` is the mirror
 * pod's.
 */
export const CONFIG_HASH_ANNOTATION = "kubernetes.io/config.hash";

/** What makes a pod a mirror pod of a static one; the value is the same. */
export const MIRROR_ANNOTATION = "kubernetes.io/config.mirror";

const STATIC_POD_ANNOTATIONS = [CONFIG_HASH_ANNOTATION, MIRROR_ANNOTATION];

const KNOWN_ANNOTATIONS = new Set([
  ...[ANNOTATION, INBOUND_ANNOTATION, EGRESS_ANNOTATION, ALLOW_ANNOTATION, GRACE_ANNOTATION],
  ...[...STATIC_POD_ANNOTATIONS, IDENTITIES_ANNOTATION, FLOOR_ANNOTATION],
]);

const MAX_ADDRESSES = 2; // one of each family: core/v1 PodStatus.podIPs
const MAX_ANNOTATION = 256;
const MAX_ANNOTATION_KEY = 317; // prefix 253, "/", name 63
const MAX_ANNOTATIONS = 32;
const MAX_SLICE_ANNOTATION = 262_144; // the API server's limit for all annotations of an object
