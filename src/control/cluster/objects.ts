import * as v from "valibot";
import { canonicalAddress } from "../../addresses.ts";
import { ANNOTATION, REGISTRY_LABEL } from "../../constants.ts";
import { quoted } from "../../names.ts";
import { KindSchema, LabelledSchema, PodSchema, SliceSchema } from "./schemas.ts";

/** What is kept of a Kubernetes Pod. */
export interface Pod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  /** Empty until the pod is scheduled. */
  readonly nodeName: string;
  /** `default` when the object names none, as the API server would fill in. */
  readonly serviceAccount: string;
  /** Only the keys that mean something here; a value that is too long is cut and ends with `…`. */
  readonly annotations: Readonly<Record<string, string>>;
  /** Canonical text, at most two, empty until the pod has its sandbox. */
  readonly addresses: readonly string[];
  readonly hostNetwork: boolean;
  /** `Pending` when the object has no status yet. */
  readonly phase: string;
  /** Has a deletion timestamp; its containers may run on for its grace period. */
  readonly deleting: boolean;
}

/** What is kept of an EndpointSlice of the registry, not yet trusted: `entriesOf` judges it. */
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

/** Everything that is known about the cluster at one moment. */
export interface ClusterObjects {
  readonly pods: readonly Pod[];
  readonly registry: readonly RegistrySlice[];
  /**
   * False while a source has never been read whole (a file that has been malformed since the agent
   * started): what is listed is true, but what is not listed must not be removed for that reason.
   */
  readonly complete: boolean;
}

/** One object of those that are kept, with where it stands in its document. */
export type KeptObject =
  & { readonly path: readonly (string | number)[] }
  & ({ readonly kind: "Pod"; readonly pod: Pod } | {
    readonly kind: "EndpointSlice";
    readonly slice: RegistrySlice;
  });

/** An object from outside is not what its kind must be. `path` leads to the bad field. */
export class ObjectError extends Error {
  override readonly name = "ObjectError";
  readonly path: readonly (string | number)[];

  constructor(message: string, path: readonly (string | number)[]) {
    super(message);
    this.path = path;
  }
}

/**
 * The objects in one parsed document (what `kubectl get … -o yaml` prints): a Pod, an EndpointSlice of the
 * registry, or a list of such. Other kinds and ordinary EndpointSlices are passed over.
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
  const { metadata, spec, status } = parse(PodSchema, value, path);
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
    serviceAccount: spec?.serviceAccountName || "default",
    annotations: keepAnnotations(metadata.annotations, isPodAnnotation, MAX_ANNOTATION),
    addresses,
    hostNetwork: spec?.hostNetwork ?? false,
    phase: status?.phase ?? "Pending",
    deleting: metadata.deletionTimestamp !== undefined,
  };
}

/**
 * The registry slice in `value`, or undefined for an EndpointSlice without the registry's label: the
 * cluster's others are none of ours to judge.
 *
 * @throws {ObjectError} when it has the label and is not a valid EndpointSlice.
 */
export function readSlice(
  value: unknown,
  path: readonly (string | number)[] = [],
): RegistrySlice | undefined {
  const { metadata: { labels } } = parse(LabelledSchema, value, path);
  if (labels?.[REGISTRY_LABEL] === undefined) return undefined;
  const { metadata, addressType, endpoints, ports } = parse(SliceSchema, value, path);
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
  const { kind, items } = parse(KindSchema, value, path);
  if (kind.endsWith("List")) {
    // The API server never nests lists; the depth ends recursion through a file's own aliases.
    if (depth > 1) throw new ObjectError("a list in a list in a list", path);
    for (const [i, item] of (items ?? []).entries()) {
      collect(withKind(item, kind), [...path, "items", i], kept, depth + 1);
    }
  } else if (kind === "Pod") kept.push({ kind, path, pod: readPod(value, path) });
  else if (kind === "EndpointSlice") {
    const slice = readSlice(value, path);
    if (slice !== undefined) kept.push({ kind, path, slice });
  }
}

/** The items of a PodList carry no kind of their own in the API server's answers. */
function withKind(item: unknown, listKind: string): unknown {
  if (listKind === "List" || typeof item !== "object" || item === null || "kind" in item) {
    return item;
  }
  return { ...item, kind: listKind.slice(0, -"List".length) };
}

function parse<const S extends v.GenericSchema>(
  schema: S,
  value: unknown,
  path: readonly (string | number)[],
): v.InferOutput<S> {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  const inside = (issue.path ?? []).map((item) => item.key as string | number);
  const field = v.getDotPath(issue) ?? "object";
  const message = issue.message.length > 200 ? `${issue.message.slice(0, 200)}…` : issue.message;
  const named = nameOf(value);
  throw new ObjectError(
    `${named === "" ? "" : `${named}: `}${field.slice(0, 200)}: ${message}`,
    [...path, ...inside],
  );
}

/** "Pod web" for messages, so that one finds it in a list of a thousand. */
function nameOf(value: unknown): string {
  const found = v.safeParse(
    v.object({ kind: v.string(), metadata: v.object({ name: v.string() }) }),
    value,
  );
  if (!found.success) return "";
  const { kind, metadata: { name } } = found.output;
  return `${quoted(kind).slice(1, -1)} ${quoted(name)}`;
}

function keepAnnotations(
  annotations: Record<string, string> | undefined,
  wanted: (key: string) => boolean,
  limit: number,
): Record<string, string> {
  const kept: Record<string, string> = {};
  let count = 0;
  for (const [key, value] of Object.entries(annotations ?? {})) {
    if (!wanted(key) || key.length > MAX_ANNOTATION_KEY || ++count > MAX_ANNOTATIONS) continue;
    // The mark makes a cut value one that nothing accepts.
    kept[key] = value.length > limit ? `${value.slice(0, limit)}…` : value;
  }
  return kept;
}

function isPodAnnotation(key: string): boolean {
  return key.startsWith(ANNOTATION) || key === CONFIG_HASH_ANNOTATION;
}

/** Where kubelet writes a static pod's own UID, which names its cgroup; `metadata.uid` is the mirror's. */
export const CONFIG_HASH_ANNOTATION = "kubernetes.io/config.hash";

const MAX_ADDRESSES = 2; // one of each family: core/v1 PodStatus.podIPs
const MAX_ANNOTATION = 256;
const MAX_ANNOTATION_KEY = 317; // prefix 253, "/", name 63
const MAX_ANNOTATIONS = 32;
const MAX_SLICE_ANNOTATION = 262_144; // the API server's limit for all annotations of an object
