import * as v from "valibot";
import { GATEWAY_NAMESPACE, REGISTRY_LABEL } from "../constants.ts";
import type { KubernetesApi } from "../kubernetes/api.ts";
import { ApiError } from "../kubernetes/errors.ts";
import { readPages } from "../kubernetes/pages.ts";
import { logger } from "../log.ts";
import type { EndpointSliceObject } from "./registry.ts";
import {
  type PresentSlice,
  presentSlice,
  type SliceChange,
  sliceChanges,
  type WantedPart,
} from "./registry_changes.ts";

const log = logger("registry");

/** Makes a node's slices in the API server what is wanted, one attempt at a time. */
export class SliceWriter {
  readonly #api: Pick<KubernetesApi, "request">;
  readonly #nodeName: string;
  readonly #signal: AbortSignal;
  /** What the API server has, by name, as far as we know; undefined when it must be asked. */
  #present: ReadonlyMap<string, PresentSlice> | undefined;
  /**
   * What each slice was before our own last writes, which a watch may still show: by name, "" for
   * nothing.
   */
  readonly #former = new Map<string, Set<string>>();
  /** The UID of our Node; empty when there is none, undefined while that is not known. */
  #ownerUid: string | undefined;
  readonly #taken = new Set<string>();

  constructor(api: Pick<KubernetesApi, "request">, nodeName: string, signal: AbortSignal) {
    this.#api = api;
    this.#nodeName = nodeName;
    this.#signal = signal;
  }

  /** Whether there was no Node when it was looked for, so that what was written has no owner. */
  get isOwnerless(): boolean {
    return this.#ownerUid === "";
  }

  /** Names that somebody else's objects have. */
  get taken(): ReadonlySet<string> {
    return this.#taken;
  }

  /** What would have to be written if `observed` were there. */
  differences(
    wanted: WantedPart,
    observed: ReadonlyMap<string, PresentSlice>,
  ): SliceChange[] {
    const changes = sliceChanges(wanted, observed, this.#ownerUid, this.#taken);
    if (changes.length === 0) this.#former.clear(); // whoever observes has caught up
    return changes;
  }

  /** Whether the API server has what is wanted, as far as we know. */
  has(wanted: WantedPart): boolean {
    return this.#present !== undefined &&
      sliceChanges(wanted, this.#present, this.#ownerUid, this.#taken).length === 0;
  }

  /** Whether what is observed may only be what was there before our own write. */
  isFormer(name: string, observed: PresentSlice | undefined): boolean {
    return this.#former.get(name)?.has(stateOf(observed)) ?? false;
  }

  /** What the API server has; undefined: nobody knows. */
  believe(present: ReadonlyMap<string, PresentSlice> | undefined): void {
    this.#present = present;
  }

  /** Others' objects under our names may be gone. */
  forgetTaken(): void {
    this.#taken.clear();
  }

  /** @throws what keeps the slices from being what is wanted. */
  async bringAbout(wanted: WantedPart): Promise<void> {
    if (wanted.slices.length > 0) await this.#readOwner();
    for (let round = 0; round < ROUNDS; round++) {
      this.#present ??= await this.#read();
      const changes = sliceChanges(wanted, this.#present, this.#ownerUid, this.#taken);
      if (await this.#make(changes)) return;
    }
    throw new Error("others write under the same names at the same time");
  }

  /**
   * @returns false when the API server has something else than was thought: it must be looked at
   * again.
   * @throws the first failure, when all was tried that does not depend on another that has failed.
   */
  async #make(changes: readonly SliceChange[]): Promise<boolean> {
    const present = new Map(this.#present);
    this.#present = present;
    const failed = new Map<string, unknown>();
    for (const change of changes) {
      const { name, slice, after } = change;
      const cause = after.find((other) => failed.has(other));
      if (cause !== undefined) {
        failed.set(name, failed.get(cause));
        continue;
      }
      try {
        this.#remember(name, stateOf(present.get(name)));
        await this.#makeOne(change);
        if (slice === undefined) present.delete(name);
        else present.set(name, this.#asPresent(name, slice));
      } catch (error) {
        if (isStatus(error, 409) || isStatus(error, 404)) {
          this.#present = await this.#read();
          const isForeign = isStatus(error, 409) && !this.#present.has(name);
          if (isForeign) this.#taken.add(name);
          else if (isStatus(error, 404) && !change.isPresent) throw error; // no such namespace
          return false;
        }
        failed.set(name, error);
      }
    }
    for (const error of failed.values()) throw error;
    return true;
  }

  async #makeOne({ name, slice, isPresent }: SliceChange): Promise<void> {
    if (slice === undefined) {
      await this.#request("DELETE", `${SLICES}/${name}`).catch((error) => {
        if (!isStatus(error, 404)) throw error;
      });
      return;
    }
    const metadata = {
      ...slice.metadata,
      name,
      ...(this.#ownerUid === undefined ? {} : { ownerReferences: this.#owners() }),
    };
    const body = { ...slice, metadata };
    // Whole lists are replaced, and nobody else writes these: no version is needed.
    if (isPresent) await this.#request("PATCH", `${SLICES}/${name}`, { body, contentType: MERGE });
    else await this.#request("POST", SLICES, { body });
  }

  #remember(name: string, former: string): void {
    const states = this.#former.get(name) ?? new Set();
    this.#former.set(name, states.add(former));
    const [oldest = ""] = states;
    if (states.size > MAX_FORMER) states.delete(oldest);
  }

  #asPresent(name: string, slice: EndpointSliceObject): PresentSlice {
    const metadata = { ...slice.metadata, name, ownerReferences: this.#owners() };
    return presentSlice({ ...slice, metadata });
  }

  /** The Node that the slices go with: Kubernetes' garbage collector removes what it owned. */
  #owners(): object[] {
    const uid = this.#ownerUid ?? "";
    return uid === "" ? [] : [{ apiVersion: "v1", kind: "Node", name: this.#nodeName, uid }];
  }

  async #read(): Promise<ReadonlyMap<string, PresentSlice>> {
    const query = { labelSelector: `${REGISTRY_LABEL}=${this.#nodeName}` };
    const present = new Map<string, PresentSlice>();
    const list = { path: SLICES, query, signal: this.#signal };
    for await (const { items } of readPages(this.#api, list)) {
      for (const slice of items.map(presentSlice)) present.set(slice.name, slice);
    }
    return present;
  }

  /** Anew for each write: a Node that was deleted and made again has another UID. */
  async #readOwner(): Promise<void> {
    try {
      const node = v.parse(
        NodeSchema,
        await this.#request("GET", `/api/v1/nodes/${this.#nodeName}`),
      );
      this.#ownerUid = node.metadata.uid;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error; // nobody answers: nor would he take the slices
      if (isStatus(error, 404)) this.#ownerUid = "";
      log.debug("the registry of {node} goes without its Node: {error}", {
        node: this.#nodeName,
        error: error.message,
      });
    }
  }

  #request(
    method: string,
    path: string,
    options: { body?: unknown; contentType?: string } = {},
  ): Promise<unknown> {
    return this.#api.request(method, path, { ...options, signal: this.#signal });
  }
}

/** All that is compared of a slice; empty for one that is not there. */
function stateOf(slice: PresentSlice | undefined): string {
  return slice === undefined ? "" : `${slice.owners} ${slice.content}`;
}

function isStatus(error: unknown, status: number): boolean {
  return error instanceof ApiError && error.status === status;
}

const NodeSchema = v.object({ metadata: v.object({ uid: v.string() }) });

const SLICES = `/apis/discovery.k8s.io/v1/namespaces/${GATEWAY_NAMESPACE}/endpointslices`;
const MERGE = "application/merge-patch+json";

/** Looks at what the API server has within one attempt, before it counts as a failure. */
const ROUNDS = 4;

/** Of a slice. A watch that is further behind makes us write what is there already. */
const MAX_FORMER = 16;
