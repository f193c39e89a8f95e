import * as v from "valibot";
import { GATEWAY_NAMESPACE, REGISTRY_LABEL } from "../constants.ts";
import type { KubernetesApi } from "../kubernetes/api.ts";
import { errorText } from "../error_text.ts";
import { ApiError } from "../kubernetes/errors.ts";
import { pause } from "../waiting.ts";
import { logger } from "../log.ts";
import type { ClusterProblem } from "./cluster.ts";
import { type EndpointSliceObject, type RegistryEntry, slicesOf } from "./registry.ts";
import {
  type PresentSlice,
  presentSlice,
  type SliceChange,
  sliceChanges,
} from "./registry_changes.ts";

const log = logger("registry");

/** How long a publisher waits for what, in milliseconds. */
export interface PublisherDelays {
  /** Until what the watch shows is put right: it may still be behind our own writes. */
  readonly settle: number;
  /** The longest between two repairs of what is undone again and again. */
  readonly longestSettle: number;
  /** After the first failure; then twice as long, and so on. */
  readonly retry: number;
  readonly longestRetry: number;
  /** From when on a write that has not been answered is a problem. */
  readonly patience: number;
  /** Between looks at a Node that is not there, so that the slices get an owner. */
  readonly ownerless: number;
  /** Between looks at everything, the Node and others' objects under our names included. */
  readonly recheck: number;
  /** When nothing was undone for so long, what was before counts no more. */
  readonly calm: number;
}

/**
 * Keeps this node's slices of the registry in the API server. What was asked for last is what will be there:
 * it goes on trying for ever, writes bursts as one, and puts right what others change.
 *
 *             publish, or the watch shows something else
 *   resting ────────────────────────────────────────────► writing ── failed ──► pausing
 *      ▲                                                   │    ▲                  │
 *      └───────────────────── written ─────────────────────┘    └── it is time ────┘
 */
export class RegistryPublisher {
  readonly #api: Pick<KubernetesApi, "request">;
  readonly #nodeName: string;
  readonly #delays: PublisherDelays;
  #state: "resting" | "writing" | "pausing" | "closed" = "resting";
  #wanted: readonly EndpointSliceObject[] | undefined;
  /** Resolved when `#wanted` is written, or something else is wanted. */
  #written = Promise.withResolvers<void>();
  /** What the API server has, by name, as far as we know; undefined when it must be asked. */
  #present: ReadonlyMap<string, PresentSlice> | undefined;
  /** What the watch shows. */
  #observed: ReadonlyMap<string, PresentSlice> | undefined;
  /** The UID of our Node; empty when there is none, undefined while that is not known. */
  #ownerUid: string | undefined;
  /** Names that somebody else's objects have. */
  readonly #taken = new Set<string>();
  /** How often in a row others have undone what was written, and when last. */
  #undone = { times: 0, at: -Infinity };
  #failure: string | undefined;
  #writingSince = 0;
  #running: Promise<void> = Promise.resolve();
  #look: ReturnType<typeof setTimeout> | undefined;
  #recheck: ReturnType<typeof setTimeout> | undefined;
  readonly #stop = new AbortController();

  constructor(
    api: Pick<KubernetesApi, "request">,
    nodeName: string,
    delays: PublisherDelays = DELAYS,
  ) {
    this.#api = api;
    this.#nodeName = nodeName;
    this.#delays = delays;
  }

  /**
   * Makes `entries` this node's registry. Resolves when they are, or something else is wanted, or it was closed;
   * nobody needs to wait for that.
   *
   * @throws {TypeError} for another node's entries.
   */
  publish(entries: readonly RegistryEntry[]): Promise<void> {
    this.#wanted = slicesOf(this.#nodeName, entries);
    this.#written.resolve();
    this.#written = Promise.withResolvers();
    if (this.#state === "closed") this.#written.resolve();
    this.#write();
    return this.#written.promise;
  }

  /** What a watch shows of this node's slices, by name. */
  observed(slices: ReadonlyMap<string, unknown>): void {
    const observed = [...slices].map(([name, slice]) => [name, presentSlice(slice)] as const);
    this.#observed = new Map(observed);
    this.#lookSoon();
  }

  /** Why the registry may not say what it should, for as long as that is so. */
  problems(): readonly ClusterProblem[] {
    const messages: string[] = [];
    const waited = performance.now() - this.#writingSince;
    if (this.#failure !== undefined) {
      messages.push(`this node's part cannot be written, and is tried again: ${this.#failure}`);
    } else if (this.#state === "writing" && waited > this.#delays.patience) {
      const seconds = Math.round(waited / 1000);
      messages.push(`this node's part is not written: no answer for ${seconds} s`);
    }
    if (this.#undone.times >= SUSPICIOUS) {
      messages.push(
        `somebody has changed or deleted this node's part ${this.#undone.times} times in a row; ` +
          `it is put right every ${Math.ceil(this.#settle / 1000)} s`,
      );
    }
    for (const name of this.#taken) {
      messages.push(
        `EndpointSlice ${GATEWAY_NAMESPACE}/${name} is not labelled as this node's: this node's ` +
          "part has another name meanwhile; find out who has made it, and delete it",
      );
    }
    return messages.map((message) => ({ file: "registry", message }));
  }

  async close(): Promise<void> {
    this.#state = "closed";
    clearTimeout(this.#look);
    clearTimeout(this.#recheck);
    this.#stop.abort();
    this.#written.resolve();
    await this.#running;
  }

  #write(): void {
    if (this.#state !== "resting") return;
    this.#state = "writing";
    clearTimeout(this.#look);
    this.#look = undefined;
    clearTimeout(this.#recheck);
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    for (let failures = 0; !signal.aborted;) {
      const wanted = this.#wanted ?? [];
      this.#writingSince = performance.now();
      try {
        await this.#bringAbout(wanted);
        failures = 0;
        this.#failure = undefined;
        if (wanted === this.#wanted) break;
      } catch (error) {
        if (signal.aborted) return;
        this.#present = undefined; // somebody else may have written, or our write may have arrived
        this.#state = "pausing";
        await pause(this.#fail(error, failures++), signal).catch(() => {}); // closed meanwhile
        if (signal.aborted) return;
        this.#state = "writing";
      }
    }
    if (signal.aborted) return;
    this.#state = "resting";
    this.#written.resolve();
    const { ownerless, recheck } = this.#delays;
    this.#recheck = setTimeout(
      () => this.#lookAtAll(),
      this.#ownerUid === "" ? ownerless : recheck,
    );
    this.#lookSoon(); // what was observed meanwhile
  }

  /** @returns how long to wait. */
  #fail(error: unknown, failures: number): number {
    const { retry, longestRetry } = this.#delays;
    const message = errorText(error);
    if (message !== this.#failure) {
      log.warn("the registry of {node} cannot be written: {error}; it is tried again", {
        node: this.#nodeName,
        error: message,
      });
    }
    this.#failure = message;
    return Math.min(retry * 2 ** failures, longestRetry) * (0.5 + Math.random());
  }

  /** How long what the watch shows is left alone: longer each time that it was undone. */
  get #settle(): number {
    const { settle, longestSettle } = this.#delays;
    return Math.min(settle * 2 ** this.#undone.times, longestSettle);
  }

  #lookSoon(): void {
    if (this.#state !== "resting" || this.#wanted === undefined) return;
    if (performance.now() - this.#undone.at > this.#delays.calm) this.#undone.times = 0;
    this.#look ??= setTimeout(() => {
      this.#look = undefined;
      this.#compare();
    }, this.#settle);
  }

  #compare(): void {
    const [wanted, observed] = [this.#wanted, this.#observed];
    if (this.#state !== "resting" || wanted === undefined || observed === undefined) return;
    const changes = sliceChanges(wanted, observed, this.#ownerUid, this.#taken);
    if (changes.length === 0) return;
    this.#undone = { times: this.#undone.times + 1, at: performance.now() };
    log.warn("somebody else has changed the registry of {node} ({slices}): it is put right", {
      node: this.#nodeName,
      slices: changes.map(({ name }) => name).join(", ").slice(0, 500),
    });
    this.#present = observed;
    this.#write();
  }

  #lookAtAll(): void {
    if (this.#wanted === undefined) return;
    if (performance.now() - this.#undone.at > this.#delays.calm) this.#undone.times = 0;
    this.#taken.clear();
    this.#present = this.#observed;
    this.#write();
  }

  async #bringAbout(wanted: readonly EndpointSliceObject[]): Promise<void> {
    if (wanted.length > 0) await this.#readOwner();
    for (let round = 0; round < ROUNDS; round++) {
      this.#present ??= await this.#read();
      const changes = sliceChanges(wanted, this.#present, this.#ownerUid, this.#taken);
      if (await this.#make(changes)) return;
    }
    throw new Error("others write under the same names at the same time");
  }

  /**
   * @returns false when the API server has something else than was thought: it must be looked at again.
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
    const { items } = v.parse(ListSchema, await this.#request("GET", SLICES, { query }));
    return new Map((items ?? []).map(presentSlice).map((slice) => [slice.name, slice]));
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
        error: errorText(error),
      });
    }
  }

  #request(
    method: string,
    path: string,
    options: { body?: unknown; contentType?: string; query?: Record<string, string> } = {},
  ): Promise<unknown> {
    return this.#api.request(method, path, { ...options, signal: this.#stop.signal });
  }
}

function isStatus(error: unknown, status: number): boolean {
  return error instanceof ApiError && error.status === status;
}

const NodeSchema = v.object({ metadata: v.object({ uid: v.string() }) });
const ListSchema = v.object({ items: v.nullish(v.array(v.unknown())) });

const SLICES = `/apis/discovery.k8s.io/v1/namespaces/${GATEWAY_NAMESPACE}/endpointslices`;
const MERGE = "application/merge-patch+json";

/** Looks at what the API server has within one attempt, before it counts as a failure. */
const ROUNDS = 4;

/** Once is a mistake, twice an accident. */
const SUSPICIOUS = 3;

const DELAYS: PublisherDelays = {
  settle: 1_000,
  longestSettle: 60_000,
  retry: 250,
  longestRetry: 5_000,
  patience: 3_000,
  ownerless: 10_000,
  recheck: 300_000,
  calm: 180_000,
};
