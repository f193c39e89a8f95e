import { type Entry, Journal } from "./journal.ts";
import type { KubeObject } from "./objects.ts";
import { type Resource, resourceKey } from "./resources.ts";

/** An object with its JSON, which lists and watches send as it is. */
export interface Stored {
  readonly object: KubeObject;
  readonly text: string;
}

export interface StoreEvent {
  readonly version: number;
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly stored: Stored;
  /** What the object was before; undefined for a new one. */
  readonly previous?: Stored;
}

/** All objects of one resource, and what happened to them lately. */
export class Collection {
  readonly objects = new Map<string, Stored>();
  readonly listeners = new Set<(event: StoreEvent) => void>();
  /** Watches must not begin before this version: what happened until then is forgotten. */
  compacted = 0;
  readonly #history: StoreEvent[] = [];

  constructor(private readonly window: number) {}

  get(namespace: string, name: string): Stored | undefined {
    return this.objects.get(keyOf(namespace, name));
  }

  /** In the order of a real server: by namespace, then name. */
  sorted(namespace: string): Stored[] {
    const keys = [...this.objects.keys()].filter((key) =>
      namespace === "" || key.startsWith(`${namespace}/`)
    );
    return keys.sort().flatMap((key) => this.objects.get(key) ?? []);
  }

  since(version: number): StoreEvent[] {
    return this.#history.filter((event) => event.version > version);
  }

  record(event: StoreEvent): void {
    this.#history.push(event);
    // In large steps: shifting an array for each event would cost its whole length.
    if (this.#history.length > this.window * 1.25 + 16) {
      const dropped = this.#history.splice(0, this.#history.length - this.window);
      this.compacted = dropped.at(-1)?.version ?? this.compacted;
    }
    for (const listener of [...this.listeners]) listener(event);
  }

  compact(version: number): void {
    this.#history.length = 0;
    this.compacted = version;
  }
}

/** What etcd and the watch cache are to a real server. */
export class Store {
  #version = 0;
  readonly #collections = new Map<string, Collection>();
  readonly #journal: Journal;

  /** `window` is how many events of each resource are remembered for watches. */
  constructor(file: string, private readonly window: number) {
    const replay = (entry: Entry) => this.#replay(entry);
    this.#journal = Journal.open(file, replay, () => this.#entries());
    this.compact(); // As after a real restart: only watches from the newest version can go on.
  }

  /** The newest resource version. */
  get version(): number {
    return this.#version;
  }

  collection(resource: Resource): Collection {
    return this.#collection(resourceKey(resource));
  }

  get(resource: Resource, namespace: string, name: string): Stored | undefined {
    return this.collection(resource).get(namespace, name);
  }

  /** Stores an object, which is the store's from then on, under the next version. */
  put(resource: Resource, object: KubeObject): Stored {
    const { previous, stored } = this.#write(resource, object, false);
    const type = previous === undefined ? "ADDED" : "MODIFIED";
    const collection = this.collection(resource);
    collection.objects.set(key(object), stored);
    collection.record({ version: this.#version, type, stored, previous });
    return stored;
  }

  /** Takes an object away. Its last state has the version of its deletion. */
  remove(resource: Resource, object: KubeObject): Stored {
    const { previous, stored } = this.#write(resource, object, true);
    const collection = this.collection(resource);
    collection.objects.delete(key(object));
    collection.record({ version: this.#version, type: "DELETED", stored, previous });
    return stored;
  }

  /** Forgets what happened: a watch from any version but the newest is answered with 410. */
  compact(): void {
    for (const collection of this.#collections.values()) collection.compact(this.#version);
  }

  *all(): Iterable<{ key: string; stored: Stored }> {
    for (const [key, { objects }] of this.#collections) {
      for (const stored of objects.values()) yield { key, stored };
    }
  }

  #write(resource: Resource, given: KubeObject, deleted: boolean) {
    const version = ++this.#version;
    const object = {
      ...given,
      metadata: { ...given.metadata, resourceVersion: String(version) },
    };
    const stored = { object, text: JSON.stringify(object) };
    this.#journal.append(resourceKey(resource), stored.text, deleted);
    return { stored, previous: this.collection(resource).objects.get(key(object)) };
  }

  #collection(name: string): Collection {
    let found = this.#collections.get(name);
    if (!found) {
      found = new Collection(this.window);
      this.#collections.set(name, found);
    }
    return found;
  }

  #replay({ r, d, o }: Entry): void {
    const { objects } = this.#collection(r);
    if (d) objects.delete(key(o));
    else objects.set(key(o), { object: o, text: JSON.stringify(o) });
    this.#version = Math.max(this.#version, Number(o.metadata.resourceVersion));
  }

  *#entries(): Iterable<Entry> {
    for (const { key, stored } of this.all()) yield { r: key, o: stored.object };
    // The newest version may be that of a deletion, and must not be given out twice.
    const metadata = { name: "version", uid: "", resourceVersion: String(this.#version) };
    yield { r: "version", d: true, o: { apiVersion: "v1", kind: "Version", metadata } };
  }
}

const key = ({ metadata }: KubeObject) => keyOf(metadata.namespace ?? "", metadata.name);
const keyOf = (namespace: string, name: string) => `${namespace}/${name}`;
