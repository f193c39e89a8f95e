import * as v from "valibot";
import { IDENTITIES_ANNOTATION, REGISTRY_LABEL } from "../constants.ts";
import { emptiedSlice, type EndpointSliceObject } from "./registry.ts";

/** What a node's part of the registry is to be. */
export interface WantedPart {
  readonly slices: readonly EndpointSliceObject[];
  /** Whether the other slices of the node are deleted; else they stay, without pods. */
  readonly isLast: boolean;
}

/** One of a node's slices as the API server has it, as far as it is compared. */
export interface PresentSlice {
  readonly name: string;
  /** What counts of it, in one order, so that texts can be compared. */
  readonly content: string;
  /** The UIDs of its owners. */
  readonly owners: string;
  /** `uid address` of each endpoint. */
  readonly entries: ReadonlySet<string>;
  /** What is left of it without pods; undefined when its name is none of the node's. */
  readonly emptied: EndpointSliceObject | undefined;
}

/** One write that brings a slice about. */
export interface SliceChange {
  readonly name: string;
  /** Undefined: it is to be deleted. */
  readonly slice: EndpointSliceObject | undefined;
  readonly isPresent: boolean;
  /**
   * What must have been written before, or an entry that moves to another slice would be in none
   * meanwhile.
   */
  readonly after: readonly string[];
}

/**
 * The writes that make `present` what is wanted, in the order in which they must be made.
 *
 * @param ownerUid of the Node that the slices go with; empty for none, undefined when that is not
 * known.
 * @param taken names that somebody else's objects have: ours get another.
 */
export function sliceChanges(
  wanted: WantedPart,
  present: ReadonlyMap<string, PresentSlice>,
  ownerUid: string | undefined,
  taken: ReadonlySet<string>,
): SliceChange[] {
  const named = new Map(
    wanted.slices.map((slice) => [nameFor(slice.metadata.name, taken), slice]),
  );
  const placeOf = new Map(
    [...named].flatMap(([name, slice]) => [...entriesOf(slice)].map((entry) => [entry, name])),
  );
  const changes = new Map<string, SliceChange>();
  for (const name of new Set([...named.keys(), ...present.keys()])) {
    const now = present.get(name);
    const slice = named.get(name) ?? (wanted.isLast ? undefined : now?.emptied);
    if (slice !== undefined && now?.content === contentOf(slice)) {
      // A slice without pods may go with a Node that is no more.
      if (!named.has(name) || ownerUid === undefined || now.owners === ownerUid) continue;
    }
    const moved = [...now?.entries ?? []].flatMap((entry) => placeOf.get(entry) ?? []);
    const after = [...new Set(moved)].filter((place) => place !== name);
    changes.set(name, { name, slice, isPresent: now !== undefined, after });
  }
  return inOrder(changes);
}

/** @throws {v.ValiError} when it is no EndpointSlice. */
export function presentSlice(value: unknown): PresentSlice {
  const slice = v.parse(PresentSchema, value);
  const { name, ownerReferences, labels } = slice.metadata;
  return {
    name,
    emptied: emptiedSlice(labels?.[REGISTRY_LABEL] ?? "", name),
    content: contentOf(slice),
    owners: (ownerReferences ?? []).map(({ uid }) => uid).join(),
    entries: entriesOf(slice),
  };
}

/**
 * The name that a wanted slice has. There is one other for each, since whoever has a node's token
 * must not be able to make any number of slices, which every agent reads
 * (daemonset/30-policies.yaml); only who may write what they like in the gateway's namespace can
 * take both.
 */
function nameFor(name: string, taken: ReadonlySet<string>): string {
  return taken.has(name) ? `${name}-other` : name;
}

/**
 * Each after those that it must come after. Entries never change places in a circle: slices are
 * sorted.
 */
function inOrder(changes: ReadonlyMap<string, SliceChange>): SliceChange[] {
  const ordered = new Set<SliceChange>();
  const visited = new Set<string>();
  const visit = (change: SliceChange | undefined) => {
    if (change === undefined || visited.has(change.name)) return;
    visited.add(change.name);
    for (const name of change.after) visit(changes.get(name));
    ordered.add(change);
  };
  for (const change of changes.values()) visit(change);
  return [...ordered];
}

/** Others' labels and annotations are theirs: a merge patch could not take them away. */
function contentOf(
  { metadata, addressType, endpoints, ports }: Omit<Slice, "metadata"> & {
    metadata: Pick<Slice["metadata"], "labels" | "annotations">;
  },
): string {
  return JSON.stringify([
    metadata.labels?.[REGISTRY_LABEL],
    metadata.annotations?.[IDENTITIES_ANNOTATION],
    addressType,
    (endpoints ?? []).map(({ addresses, conditions, nodeName, targetRef }) => [
      addresses,
      conditions?.ready ?? true,
      nodeName,
      [targetRef?.kind, targetRef?.namespace, targetRef?.name, targetRef?.uid],
    ]),
    (ports ?? []).map(({ name, port, protocol }) => [name, port, protocol]),
  ]);
}

function entriesOf({ endpoints }: Pick<Slice, "endpoints">): Set<string> {
  return new Set(
    (endpoints ?? []).flatMap(({ addresses, targetRef }) =>
      addresses.map((address) => `${targetRef?.uid} ${address}`)
    ),
  );
}

const text = v.nullish(v.string());
const texts = v.nullish(v.record(v.string(), v.string()));
const PresentSchema = v.object({
  metadata: v.object({
    name: v.string(),
    labels: texts,
    annotations: texts,
    ownerReferences: v.nullish(v.array(v.object({ uid: v.string() }))),
  }),
  addressType: v.string(),
  endpoints: v.nullish(v.array(v.object({
    addresses: v.array(v.string()),
    conditions: v.nullish(v.object({ ready: v.nullish(v.boolean()) })),
    nodeName: text,
    targetRef: v.nullish(v.object({ kind: text, namespace: text, name: text, uid: text })),
  }))),
  ports: v.nullish(v.array(v.object({ name: text, port: v.nullish(v.number()), protocol: text }))),
});
type Slice = v.InferOutput<typeof PresentSchema>;
