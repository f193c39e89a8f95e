import * as v from "valibot";
import { GATEWAY_NAMESPACE, IDENTITIES_ANNOTATION, REGISTRY_LABEL } from "../constants.ts";
import type { KubernetesApi } from "../kubernetes/api.ts";
import { ApiError, errorText } from "../kubernetes/errors.ts";
import { pause } from "../kubernetes/pace.ts";
import { logger } from "../log.ts";
import { type EndpointSliceObject, type RegistryEntry, slicesOf } from "./registry.ts";

const log = logger("registry");

/** The Node that the slices go with: Kubernetes' garbage collector removes what it owned. */
interface Owner {
  readonly apiVersion: "v1";
  readonly kind: "Node";
  readonly name: string;
  readonly uid: string;
}

/**
 * Keeps this node's slices of the registry in the API server. Writes on change only, bursts as one, and goes on
 * trying: what was asked for last is what will be there.
 */
export class RegistryPublisher {
  readonly #api: KubernetesApi;
  readonly #nodeName: string;
  /** What the API server has, by name; undefined before it was asked. */
  #present: Map<string, string> | undefined;
  #observed: ReadonlyMap<string, unknown> = new Map();
  #check: ReturnType<typeof setTimeout> | undefined;
  #owner: Owner | undefined;
  #wanted: readonly RegistryEntry[] | undefined;
  #running: Promise<void> | undefined;
  /** Resolved when `#wanted` is written. */
  #written = Promise.withResolvers<void>();
  readonly #stop = new AbortController();

  constructor(api: KubernetesApi, nodeName: string) {
    this.#api = api;
    this.#nodeName = nodeName;
  }

  /**
   * Makes `entries` this node's registry. Resolves when they are; rejects when that takes too long, and the
   * publisher goes on trying.
   */
  async publish(entries: readonly RegistryEntry[]): Promise<void> {
    this.#wanted = entries;
    const written = this.#written.promise;
    this.#running ??= this.#run();
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), PATIENCE_MILLISECONDS);
    try {
      await Promise.race([written, pause(2 * PATIENCE_MILLISECONDS, late.signal)]);
    } catch {
      throw new Error("the API server has not taken the registry yet; it will be tried again");
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * What a watch has seen of this node's slices: what somebody else has made of them is put right. It is looked
   * at a little later, since a watch may still be behind our own writes.
   */
  observed(present: ReadonlyMap<string, unknown>): void {
    this.#observed = present;
    clearTimeout(this.#check);
    this.#check = setTimeout(() => this.#compare(), SETTLE_MILLISECONDS);
  }

  async close(): Promise<void> {
    clearTimeout(this.#check);
    this.#stop.abort();
    await this.#running;
  }

  #compare(): void {
    if (this.#wanted === undefined || this.#running !== undefined) return;
    this.#present = new Map([...this.#observed].map(([name, slice]) => [name, contentOf(slice)]));
    const slices = slicesOf(this.#nodeName, this.#wanted);
    if (this.#changes(slices).length > 0) this.#running = this.#run();
  }

  async #run(): Promise<void> {
    for (let failures = 0; !this.#stop.signal.aborted;) {
      const wanted = this.#wanted;
      if (wanted === undefined) break;
      try {
        await this.#write(slicesOf(this.#nodeName, wanted));
        failures = 0;
        if (wanted !== this.#wanted) continue;
        this.#written.resolve();
        this.#written = Promise.withResolvers();
        break;
      } catch (error) {
        if (this.#stop.signal.aborted) break;
        this.#present = undefined; // somebody else may have written, or our write may have arrived
        const wait = Math.min(250 * 2 ** failures++, 10_000) * (0.5 + Math.random());
        log.warn("the registry of {node} cannot be written: {error}; again in {seconds} s", {
          node: this.#nodeName,
          error: errorText(error),
          seconds: (wait / 1000).toFixed(1),
        });
        await pause(wait, this.#stop.signal).catch(() => {});
      }
    }
    this.#running = undefined;
  }

  async #write(wanted: readonly EndpointSliceObject[]): Promise<void> {
    this.#present ??= await this.#read();
    if (wanted.length > 0) this.#owner ??= await this.#node();
    const present = this.#present;
    for (const { name, slice } of this.#changes(wanted)) {
      if (slice === undefined) {
        await this.#request("DELETE", `${SLICES}/${name}`).catch(ignore(404));
        present.delete(name);
        continue;
      }
      const metadata = {
        ...slice.metadata,
        ...(this.#owner === undefined ? {} : { ownerReferences: [this.#owner] }),
      };
      const body = { ...slice, metadata };
      if (!present.has(name)) {
        const made = await this.#request("POST", SLICES, body).catch(ignore(409));
        if (made === undefined) await this.#patch(name, body);
      } else await this.#patch(name, body);
      present.set(name, contentOf(slice));
    }
  }

  /** Whole lists are replaced, and nobody else writes these: no version is needed. */
  async #patch(name: string, body: unknown): Promise<void> {
    await this.#request("PATCH", `${SLICES}/${name}`, body, "application/merge-patch+json");
  }

  #changes(
    wanted: readonly EndpointSliceObject[],
  ): { name: string; slice: EndpointSliceObject | undefined }[] {
    const names = new Set(wanted.map(({ metadata }) => metadata.name));
    const gone = [...this.#present?.keys() ?? []].filter((name) => !names.has(name));
    return [
      ...gone.map((name) => ({ name, slice: undefined })),
      ...wanted.map((slice) => ({ name: slice.metadata.name, slice }))
        .filter(({ name, slice }) => this.#present?.get(name) !== contentOf(slice)),
    ];
  }

  async #read(): Promise<Map<string, string>> {
    const { items } = v.parse(
      ListSchema,
      await this.#request("GET", SLICES, undefined, undefined, {
        labelSelector: `${REGISTRY_LABEL}=${this.#nodeName}`,
      }),
    );
    return new Map((items ?? []).map((slice) => [slice.metadata.name, contentOf(slice)]));
  }

  async #node(): Promise<Owner | undefined> {
    try {
      const { metadata: { uid } } = v.parse(
        NodeSchema,
        await this.#request("GET", `/api/v1/nodes/${this.#nodeName}`),
      );
      return { apiVersion: "v1", kind: "Node", name: this.#nodeName, uid };
    } catch (error) {
      if (!(error instanceof ApiError) || (error.status !== 403 && error.status !== 404)) {
        throw error;
      }
      log.warn("the registry of {node} will outlive its Node: {error}", {
        node: this.#nodeName,
        error: error.message,
      });
      return undefined;
    }
  }

  #request(
    method: string,
    path: string,
    body?: unknown,
    contentType?: string,
    query?: Record<string, string>,
  ): Promise<unknown> {
    return this.#api.request(method, path, {
      signal: this.#stop.signal,
      ...(body === undefined ? {} : { body }),
      ...(contentType === undefined ? {} : { contentType }),
      ...(query === undefined ? {} : { query }),
    });
  }
}

/**
 * What counts of a slice, in one order, so that texts can be compared. Others' labels and annotations are theirs:
 * a merge patch could not take them away.
 */
function contentOf(slice: unknown): string {
  const { metadata, addressType, endpoints, ports } = v.parse(SliceSchema, slice);
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

function ignore(status: number): (error: unknown) => undefined {
  return (error) => {
    if (!(error instanceof ApiError) || error.status !== status) throw error;
    return undefined;
  };
}

const text = v.nullish(v.string());
const texts = v.nullish(v.record(v.string(), v.string()));
const NodeSchema = v.object({ metadata: v.object({ uid: v.string() }) });
const SliceSchema = v.object({
  metadata: v.object({ name: v.string(), labels: texts, annotations: texts }),
  addressType: v.string(),
  endpoints: v.nullish(v.array(v.object({
    addresses: v.array(v.string()),
    conditions: v.nullish(v.object({ ready: v.nullish(v.boolean()) })),
    nodeName: text,
    targetRef: v.nullish(v.object({ kind: text, namespace: text, name: text, uid: text })),
  }))),
  ports: v.nullish(v.array(v.object({ name: text, port: v.nullish(v.number()), protocol: text }))),
});
const ListSchema = v.object({ items: v.nullish(v.array(SliceSchema)) });

const SLICES = `/apis/discovery.k8s.io/v1/namespaces/${GATEWAY_NAMESPACE}/endpointslices`;

const SETTLE_MILLISECONDS = 1_000;

/** Longer than a healthy API server takes; whoever waits has better things to do. */
const PATIENCE_MILLISECONDS = 3_000;
