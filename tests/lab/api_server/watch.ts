import type { Selector } from "./selectors.ts";
import { groupVersion, type Resource } from "./resources.ts";
import { gone } from "./status.ts";
import type { Collection, Stored, StoreEvent } from "./store.ts";

export interface WatchOptions {
  resource: Resource;
  collection: Collection;
  /** Empty for all. */
  namespace: string;
  selector: Selector | undefined;
  /** Events after this one are sent. */
  from: number;
  /** Whether what there is comes first, as ADDED. */
  initial: boolean;
  /** Whether a bookmark says where the initial ones end. */
  marksInitialEnd: boolean;
  /** Milliseconds between bookmarks; undefined for none. */
  bookmarkEveryMs: number | undefined;
  timeoutMs: number;
  /** The store's newest version. */
  version(): number;
}

/** One watch: JSON lines for as long as it lasts. */
export class Watch {
  readonly body: ReadableStream<Uint8Array>;
  /** Settles when the watch is over, whoever ended it. */
  readonly ended: Promise<void>;
  #controller?: ReadableStreamDefaultController<Uint8Array>;
  readonly #timers: (ReturnType<typeof setTimeout> | ReturnType<typeof setInterval>)[] = [];
  readonly #end: () => void;
  readonly #onEvent = (event: StoreEvent) => this.#offer(event);

  /** @throws {StatusError} 410 when the history does not reach back to `from`. */
  constructor(private readonly options: WatchOptions) {
    const { collection, from, initial } = options;
    if (!initial && from < collection.compacted) {
      throw gone(`too old resource version: ${from} (${collection.compacted})`);
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    this.#end = resolve;
    this.body = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
        this.#begin();
      },
      cancel: () => this.#stop(),
    });
  }

  /** A line as it is, also one that is no JSON. */
  line(text: string): void {
    try {
      this.#controller?.enqueue(new TextEncoder().encode(text));
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // It has just been closed.
    }
  }

  /** Ends it as the server does after `timeoutSeconds`. */
  close(): void {
    this.#settle((controller) => controller.close());
  }

  /** Breaks it off: the client sees a reset. */
  reset(): void {
    this.#settle((controller) => controller.error(new Error("The watch was to be broken off")));
  }

  /** What a server sends whose history no longer holds what this watch needs. */
  gone(): void {
    const { status } = gone("too old resource version: 1 (2)");
    this.line(`${JSON.stringify({ type: "ERROR", object: status })}\n`);
    this.close();
  }

  #begin(): void {
    const { collection, namespace, from, initial, marksInitialEnd } = this.options;
    const { bookmarkEveryMs, timeoutMs, version } = this.options;
    if (initial) {
      for (const stored of collection.sorted(namespace)) {
        if (this.#matches(stored)) this.line(eventLine("ADDED", stored));
      }
      if (marksInitialEnd) this.#bookmark(version(), true);
    } else {
      for (const event of collection.since(from)) this.#offer(event);
    }
    collection.listeners.add(this.#onEvent);
    this.#timers.push(setTimeout(() => this.close(), timeoutMs));
    if (bookmarkEveryMs === undefined) return;
    this.#timers.push(setInterval(() => this.#bookmark(version(), false), bookmarkEveryMs));
  }

  /**
   * An object that comes to match is ADDED to the one who watches, one that ceases to is DELETED.
   */
  #offer({ type, stored, previous, version }: StoreEvent): void {
    const { namespace } = this.options;
    if (namespace !== "" && stored.object.metadata.namespace !== namespace) return;
    const was = previous !== undefined && this.#matches(previous);
    const is = type !== "DELETED" && this.#matches(stored);
    if (was && !is) {
      // What it was when it still matched, with the version of what happened.
      const last = type === "DELETED" ? stored : withVersion(previous, version);
      this.line(eventLine("DELETED", last));
    } else if (is) {
      this.line(eventLine(was ? "MODIFIED" : "ADDED", stored));
    }
  }

  #matches({ object }: Stored): boolean {
    return this.options.selector?.(object) ?? true;
  }

  #bookmark(version: number, endsInitial: boolean): void {
    const { resource } = this.options;
    const metadata = {
      resourceVersion: String(version),
      creationTimestamp: null,
      ...(endsInitial ? { annotations: { "k8s.io/initial-events-end": "true" } } : {}),
    };
    const object = { kind: resource.kind, apiVersion: groupVersion(resource), metadata };
    this.line(`${JSON.stringify({ type: "BOOKMARK", object })}\n`);
  }

  #settle(how: (controller: ReadableStreamDefaultController<Uint8Array>) => void): void {
    const controller = this.#controller;
    this.#stop();
    if (controller) how(controller);
  }

  #stop(): void {
    this.options.collection.listeners.delete(this.#onEvent);
    for (const timer of this.#timers) clearTimeout(timer);
    this.#controller = undefined;
    this.#end();
  }
}

function eventLine(type: string, { text }: Stored): string {
  return `{"type":"${type}","object":${text}}\n`;
}

function withVersion({ object }: Stored, version: number): Stored {
  const metadata = { ...object.metadata, resourceVersion: String(version) };
  const changed = { ...object, metadata };
  return { object: changed, text: JSON.stringify(changed) };
}
