import * as v from "valibot";
import { errorText } from "../error_text.ts";
import { logger } from "../log.ts";
import { noteGarbage, releaseMemorySoon } from "../memory.ts";
import { jittered, pause } from "../waiting.ts";
import { type ApiClient, MAX_OBJECT_BYTES } from "./api.ts";
import { ApiError, isOutage, retryAfterMilliseconds } from "./errors.ts";
import { readLines } from "./lines.ts";
import { type ListRequest, readPages } from "./pages.ts";

const log = logger("kubernetes");

/** What to follow, and what to make of it. */
export interface WatchOptions<T> {
  /** What is followed, for the log: `pods of node-a`. */
  readonly name: string;
  /** Of the collection, for example `/api/v1/pods`. */
  readonly path: string;
  /** `fieldSelector`, `labelSelector`. */
  readonly query?: Readonly<Record<string, string>>;
  /**
   * read reduces an object to what is kept; undefined keeps nothing of it. When it throws, what was
   * kept of an earlier version stays, and `problems` tells.
   */
  readonly read: (object: unknown) => T | undefined;
  /**
   * Called when the first list is complete, and after every change. `items` is by `namespace/name`
   * (or just the name) and goes on changing. What it throws is logged.
   */
  readonly onChange: (items: ReadonlyMap<string, T>) => void;
  /**
   * A watch is given up when it has been silent for so long: longer than the API server's bookmarks
   * take (75 s at most).
   */
  readonly idleMilliseconds?: number;
}

/** A collection of which nothing is heard. */
export interface Unheard {
  /** By the monotonic clock, in milliseconds. */
  readonly since: number;
  /** What went wrong last. */
  readonly why: string;
  /** It may be the API server's trouble, not just this collection's. */
  readonly isOutage: boolean;
}

/** A collection of the API server, followed. */
export interface WatchedList {
  /** As {@link WatchOptions} has it. */
  readonly name: string;
  /** Resolves when the first list is complete; never when that does not happen before `close`. */
  readonly synced: Promise<void>;
  /** Objects that could not be read, by `namespace/name`, and why. */
  problems(): ReadonlyMap<string, string>;
  /** Set while nothing comes of it: since when, and why. */
  unheard(): Unheard | undefined;
  close(): Promise<void>;
}

/**
 * watchList lists a collection, then watches it from there until it is closed. A watch that breaks
 * is begun again, with backoff and jitter. Only a DELETED event or a complete list says that an
 * object is gone.
 *
 * A server whose state was put back (etcd restored from a backup) takes a watch from a version that
 * it has not reached yet, and says nothing until it has. So before a watch goes on its server is
 * asked how far it is, and one that is not as far any more is listed anew.
 *
 * The protocol: kubernetes.io/docs/reference/using-api/api-concepts, "Efficient detection of
 * changes".
 */
export function watchList<T>(api: ApiClient, options: WatchOptions<T>): WatchedList {
  const follower = new Follower(api, options);
  return {
    name: options.name,
    synced: follower.synced.promise,
    problems: () => follower.problems,
    unheard: () => follower.unheard,
    close: () => follower.close(),
  };
}

interface Known<T> {
  readonly uid: string;
  readonly version: string;
  readonly item: T | undefined;
}

class Follower<T> {
  readonly synced = Promise.withResolvers<void>();
  readonly problems = new Map<string, string>();
  unheard: Unheard | undefined = {
    since: performance.now(),
    why: "it has not been answered yet",
    isOutage: true,
  };
  /** The last watch was begun, and nothing came of it: that another one is begun says nothing. */
  #wasSilent = false;
  readonly #api: ApiClient;
  readonly #options: WatchOptions<T>;
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  #known = new Map<string, Known<T>>();
  readonly #items = new Map<string, T>();
  #isSynced = false;
  /** Where the next watch begins; empty when a list must come first. */
  #version = "";
  /** The last version of all. */
  #newest = "";
  /** Versions that are known may be other objects' by now. */
  #isPutBack = false;
  /** An earlier watch has come as far as `#version`. */
  #isResumed = false;
  #changed = false;
  /** In a row, without anything having come of them. */
  #failures = 0;
  #isAway = false;

  constructor(api: ApiClient, options: WatchOptions<T>) {
    this.#api = api;
    this.#options = options;
    this.#done = this.#run();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        if (this.#version === "") await this.#list();
        else await this.#watch();
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        await this.#backOff(error).catch(() => {}); // closed meanwhile
      }
    }
  }

  async #list(): Promise<void> {
    const listed = new Map<string, Known<T>>();
    let version = "";
    let pages = 0;
    for await (const page of readPages(this.#api, this.#listRequest())) {
      if (isOlder(page.resourceVersion, this.#newest)) this.#putBack(page.resourceVersion);
      for (const object of page.items) {
        const metadata = v.parse(ObjectSchema, object).metadata;
        const key = keyOf(metadata);
        const before = this.#known.get(key);
        const isSame = !this.#isPutBack && before?.uid === metadata.uid &&
          before.version === metadata.resourceVersion;
        listed.set(key, isSame ? before : this.#read(key, metadata, object));
      }
      pages++;
      version = page.resourceVersion;
      this.unheard &&= { ...this.unheard, since: performance.now() };
    }

    for (const key of this.#known.keys()) if (!listed.has(key)) this.#problemSolved(key);
    for (const [key, { item }] of listed) this.#set(key, item);
    for (const key of this.#items.keys()) if (!listed.has(key)) this.#set(key, undefined);
    this.#known = listed;
    this.#version = this.#newest = version;
    this.#isPutBack = this.#isResumed = false;
    this.#changed ||= !this.#isSynced;
    this.#tell();
    this.#isSynced = true;
    this.#hear();
    this.synced.resolve();
    if (pages > 1) releaseMemorySoon();
  }

  #listRequest(): ListRequest {
    const { name, path, query } = this.#options;
    return {
      path,
      ...(query === undefined ? {} : { query }),
      signal: this.#stop.signal,
      onLarge: () => log.info("{name}: some of it is large, and read in small pages", { name }),
    };
  }

  /** Throws an Error when the server's state is older than what it has said before. */
  async #requireProgress(): Promise<void> {
    const { path, query } = this.#options;
    // One object of all costs the server least, and may be all that an account may ask for.
    const isOne = query?.fieldSelector?.startsWith("metadata.name=") === true;
    const answer = await this.#api.request("GET", path, {
      query: { ...(isOne ? query : {}), limit: "1" },
      signal: this.#stop.signal,
      maxBytes: MAX_OBJECT_BYTES,
    });
    const { resourceVersion } = v.parse(ObjectSchema, answer).metadata;
    if (isOlder(resourceVersion, this.#version)) throw this.#putBack(resourceVersion);
  }

  /** The server has said an older version than before; returns that as what ends a watch. */
  #putBack(version: string): Error {
    if (!this.#isPutBack) {
      log.warn("{name}: the API server's state was put back, from {before} to {version}", {
        name: this.#options.name,
        before: this.#newest,
        version,
      });
    }
    this.#isPutBack = true;
    this.#version = this.#newest = "";
    return new Error("the API server's state was put back: everything is read anew");
  }

  async #watch(): Promise<void> {
    if (this.#isResumed) await this.#requireProgress();
    this.#isResumed = true;
    const idle = new AbortController();
    const idleMilliseconds = this.#options.idleMilliseconds ?? IDLE_MILLISECONDS;
    const began = performance.now();
    let heard = began;
    let looked = Date.now();
    const look = () => {
      const before = looked;
      looked = Date.now();
      const seconds = Math.round((looked - before) / 1000);
      if (seconds * 1000 >= STOOD_STILL_MILLISECONDS) {
        // The process, or its machine, was suspended: the server may have given the watch up.
        idle.abort(new Error(`nothing ran here for ${seconds} s`));
      } else if (performance.now() - heard >= idleMilliseconds) {
        this.#wasSilent = true;
        const silence = `no word for ${idleMilliseconds / 1000} s, though bookmarks were due`;
        idle.abort(new Error(silence));
      }
    };
    const timer = setInterval(look, Math.min(LOOK_MILLISECONDS, idleMilliseconds / 4));
    let events = 0;
    try {
      const stream = this.#api.stream(
        this.#options.path,
        {
          ...this.#options.query,
          watch: "1",
          allowWatchBookmarks: "true",
          resourceVersion: this.#version,
          // Not all agents at the same moment: 5 to 10 minutes, as client-go has it.
          timeoutSeconds: String(Math.round(300 * (1 + Math.random()))),
        },
        AbortSignal.any([this.#stop.signal, idle.signal]),
        () => {
          if (!this.#wasSilent) this.#hear();
        },
      );
      for await (const lines of readLines(stream, MAX_OBJECT_BYTES)) {
        heard = performance.now();
        for (const line of lines) {
          this.#event(JSON.parse(line));
          noteGarbage(line.length);
        }
        events += lines.length;
        this.#failures = 0;
        this.#hear();
        this.#tell();
      }
    } finally {
      clearInterval(timer);
      this.#tell(); // of what came before the failure
    }
    // A server ends watches in good order; a server that only does that is not asked in a tight
    // loop.
    const lasted = performance.now() - began;
    if (events === 0 && lasted < 1000) {
      this.#wasSilent = true;
      throw new Error("the watch ended at once");
    }
    await pause(SHORTEST_WATCH_MILLISECONDS - lasted, this.#stop.signal);
  }

  #hear(): void {
    this.unheard = undefined;
    this.#wasSilent = false;
  }

  #event(value: unknown): void {
    const { type, object } = v.parse(EventSchema, value);
    if (type === "ERROR") {
      this.#version = ""; // as client-go does: after an error nothing is sure
      const { code = 500, reason = "", message = "" } = v.parse(StatusSchema, object);
      throw new ApiError(code, reason, message);
    }
    const { metadata } = v.parse(ObjectSchema, object);
    if (isOlder(metadata.resourceVersion, this.#version)) {
      throw this.#putBack(metadata.resourceVersion);
    }
    this.#version = this.#newest = metadata.resourceVersion;
    if (type === "BOOKMARK") return;
    const key = keyOf(metadata);
    const before = this.#known.get(key);
    if (type === "DELETED") {
      // The event may be about an earlier object of the same name.
      if (before !== undefined && before.uid !== metadata.uid) return;
      this.#known.delete(key);
      this.#problemSolved(key);
      this.#set(key, undefined);
    } else if (before?.uid !== metadata.uid || before.version !== metadata.resourceVersion) {
      const known = this.#read(key, metadata, object);
      this.#known.set(key, known);
      this.#set(key, known.item);
    }
  }

  #read(key: string, { uid, resourceVersion: version }: Metadata, object: unknown): Known<T> {
    try {
      const item = this.#options.read(object);
      this.#problemSolved(key);
      return { uid, version, item };
    } catch (error) {
      const before = this.#known.get(key);
      this.problems.set(key, errorText(error));
      this.#changed = true;
      return { uid, version, item: before?.uid === uid ? before.item : undefined };
    }
  }

  #problemSolved(key: string): void {
    if (this.problems.delete(key)) this.#changed = true;
  }

  #set(key: string, item: T | undefined): void {
    if (this.#items.get(key) === item) return;
    this.#changed = true;
    if (item === undefined) this.#items.delete(key);
    else this.#items.set(key, item);
  }

  #tell(): void {
    if (!this.#changed) return;
    this.#changed = false;
    try {
      this.#options.onChange(this.#items);
    } catch (error) {
      log.error("{name}: a change could not be handled: {error}", {
        name: this.#options.name,
        error: errorText(error),
      });
    }
  }

  async #backOff(error: unknown): Promise<void> {
    // After a 410 the server has forgotten where the watch or the next page would go on. An answer
    // that cannot be understood is no place to go on from either.
    const isGone = error instanceof ApiError && error.status === 410;
    if (isGone || error instanceof v.ValiError || isSyntax(error)) this.#version = "";
    // A server that answers, even with a refusal, is back: failures while it was away no longer
    // count.
    if (this.#isAway && !isOutage(error)) this.#failures = 0;
    this.#isAway = isOutage(error);
    this.unheard = {
      since: this.unheard?.since ?? performance.now(),
      why: errorText(error),
      isOutage: this.#isAway,
    };
    const backoff = FIRST_BACKOFF_MILLISECONDS * 2 ** this.#failures;
    const wait = Math.max(
      retryAfterMilliseconds(error) * (1 + 0.2 * Math.random()),
      jittered(Math.min(backoff, MAX_BACKOFF_MILLISECONDS), 0.5),
    );
    // One cut is an everyday event; the second in a row may interest somebody, and who waits for
    // the first list.
    if (this.#failures++ > 0 || !this.#isSynced) {
      log.warn("{name}: {error}; again in {seconds} s", {
        name: this.#options.name,
        error: errorText(error),
        seconds: (wait / 1000).toFixed(1),
      });
    }
    await pause(wait, this.#stop.signal);
  }
}

type Metadata = v.InferOutput<typeof ObjectSchema>["metadata"];

function keyOf({ namespace, name }: Metadata): string {
  return namespace === undefined ? name : `${namespace}/${name}`;
}

/**
 * Whether a version is older than another one. Where they are no numbers, nobody can tell
 * (kubernetes.io/docs/reference/using-api/api-concepts, "Resource versions").
 */
function isOlder(version: string, other: string): boolean {
  if (!/^[1-9]\d*$/.test(version) || !/^[1-9]\d*$/.test(other)) return false;
  return version.length === other.length ? version < other : version.length < other.length;
}

function isSyntax(error: unknown): boolean {
  return error instanceof SyntaxError || error instanceof RangeError;
}

/** Of meta/v1, what every object and list has. */
const ObjectSchema = v.object({
  metadata: v.object({
    name: v.optional(v.string(), ""), // a bookmark has none
    namespace: v.optional(v.string()),
    uid: v.optional(v.string(), ""),
    resourceVersion: v.pipe(v.string(), v.minLength(1)),
  }),
});
const EventSchema = v.object({ type: v.string(), object: v.unknown() });
const StatusSchema = v.object({
  code: v.optional(v.number()),
  reason: v.optional(v.string()),
  message: v.optional(v.string()),
});

const IDLE_MILLISECONDS = 90_000;
/** How often it is looked whether a watch is silent, and how late that is when nothing ran. */
const LOOK_MILLISECONDS = 10_000;
const STOOD_STILL_MILLISECONDS = 40_000;
const FIRST_BACKOFF_MILLISECONDS = 200;
const SHORTEST_WATCH_MILLISECONDS = 250;
/** While the server is away, the client's own pace holds back all watches together. */
const MAX_BACKOFF_MILLISECONDS = 5_000;
