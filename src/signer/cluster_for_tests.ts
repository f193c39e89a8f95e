/**
 * For tests: an API server's objects in memory, which answer late, never or with an error when a
 * test says so. What it knows of the API is what the signer relies on: names, versions, conflicts,
 * lists and watches.
 */
import type { ApiClient, RequestOptions } from "../kubernetes/api.ts";
import { ApiError, NoAnswer } from "../kubernetes/errors.ts";

export interface StoredObject {
  metadata: { name: string; uid: string; resourceVersion: string; creationTimestamp: string };
  // deno-lint-ignore no-explicit-any -- tests look into objects of all kinds
  [field: string]: any;
}

interface Change {
  readonly collection: string;
  readonly version: number;
  readonly line: string;
}

export class MemoryCluster implements ApiClient {
  /** By path. */
  readonly objects = new Map<string, StoredObject>();
  /** `METHOD path`, as they came. */
  readonly asked: string[] = [];
  /** What happens before a request is served: it may wait, or throw an error for an answer. */
  before: (method: string, path: string) => unknown = () => {};
  #version = 0;
  readonly #changes: Change[] = [];
  readonly #wakers = new Set<() => void>();

  /** Puts an object where it belongs, as somebody else would. */
  seed(path: string, object: object): StoredObject {
    const { metadata, ...rest } = object as Partial<StoredObject>;
    const name = path.slice(path.lastIndexOf("/") + 1);
    return this.#store(path, {
      ...rest,
      metadata: {
        name,
        uid: crypto.randomUUID(),
        creationTimestamp: new Date().toISOString(),
        resourceVersion: "",
        ...metadata,
      },
    }, this.objects.has(path) ? "MODIFIED" : "ADDED");
  }

  remove(path: string): void {
    const object = this.objects.get(path);
    this.objects.delete(path);
    if (object !== undefined) this.#tell(path, object, "DELETED");
  }

  async request(method: string, path: string, options: RequestOptions = {}): Promise<unknown> {
    const { timeoutMs = 10_000, signal } = options;
    this.asked.push(`${method} ${path}`);
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => late.reject(new NoAnswer(`no answer to ${method} ${path} in ${timeoutMs / 1000} s`)),
      timeoutMs,
    );
    const abort = () => late.reject(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      await Promise.race([this.before(method, path), late.promise]);
      return structuredClone(this.#serve(method, path, options));
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }

  async *stream(
    path: string,
    query: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    let seen = Number(query.resourceVersion);
    for (;;) {
      signal.throwIfAborted();
      for (const { collection, version, line } of [...this.#changes]) {
        if (version <= seen) continue;
        seen = version;
        if (collection === path) yield new TextEncoder().encode(`${line}\n`);
      }
      await new Promise<void>((resolve) => {
        const wake = () => {
          this.#wakers.delete(wake);
          signal.removeEventListener("abort", wake);
          resolve();
        };
        this.#wakers.add(wake);
        signal.addEventListener("abort", wake, { once: true });
        if (this.#version > seen || signal.aborted) wake();
      });
    }
  }

  #serve(method: string, path: string, { body, query }: RequestOptions): unknown {
    const given = body as StoredObject;
    const target = path.replace(/\/(approval|status)$/, "");
    const existing = this.objects.get(target);
    if (method === "GET" && query !== undefined) return this.#list(path);
    if (method === "POST") {
      const made = `${path}/${given.metadata.name}`;
      if (this.objects.has(made)) throw new ApiError(409, "AlreadyExists", `${made} exists`);
      return this.seed(made, given);
    }
    if (existing === undefined) throw new ApiError(404, "NotFound", `no ${path}`);
    if (method === "GET") return existing;
    if (given.metadata.resourceVersion !== existing.metadata.resourceVersion) {
      throw new ApiError(409, "Conflict", `${target} has changed`);
    }
    const object = method === "PATCH" ? merged(existing, given) : given;
    return this.#store(target, object as StoredObject, "MODIFIED");
  }

  #list(path: string): unknown {
    const items = [...this.objects].filter(([key]) => collectionOf(key) === path);
    return {
      metadata: { resourceVersion: String(this.#version) },
      items: items.map(([, object]) => object),
    };
  }

  #store(path: string, object: StoredObject, type: "ADDED" | "MODIFIED"): StoredObject {
    const metadata = { ...object.metadata, resourceVersion: String(this.#version + 1) };
    const stored = structuredClone({ ...object, metadata });
    this.objects.set(path, stored);
    this.#tell(path, stored, type);
    return stored;
  }

  #tell(path: string, object: StoredObject, type: string): void {
    const version = ++this.#version;
    object = { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } };
    const line = JSON.stringify({ type, object });
    this.#changes.push({ collection: collectionOf(path), version, line });
    for (const wake of [...this.#wakers]) wake();
  }
}

/** RFC 7396. */
function merged(object: unknown, patch: unknown): unknown {
  if (!isFields(patch)) return patch;
  const result: Record<string, unknown> = isFields(object) ? { ...object } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = merged(result[name], value);
  }
  return result;
}

function isFields(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function collectionOf(path: string): string {
  const collection = path.slice(0, path.lastIndexOf("/"));
  // Nobody lists the pods of one namespace here.
  return collection.endsWith("/pods") ? "/api/v1/pods" : collection;
}

/** An answer that is not there before the test says so. */
export function never(): Promise<never> {
  return new Promise(() => {});
}
