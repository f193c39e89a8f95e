import { dirname, join } from "node:path";
import { stringify } from "yaml";
import { delay } from "../waiting.ts";
import { errorText } from "../error_text.ts";
import { logger } from "../log.ts";
import {
  emptySlice,
  partOf,
  type RegistryEntry,
  type RegistryPart,
  requireNodeName,
  slicesOf,
} from "../cluster/registry.ts";
import type { Cluster, ClusterProblem } from "../cluster/cluster.ts";
import { DirectoryFiles } from "./directory_files.ts";
import type { ClusterObjects } from "../cluster/cluster.ts";
import type { RegistrySlice } from "../cluster/objects.ts";

/** A directory that plays the API server, and the node whose registry is published there. */
export interface DirectoryOptions {
  directory: string;
  nodeName: string;
  trustDomain: string;
}

/**
 * The cluster in a directory: every `*.yaml`, `*.yml` and `*.json` in it and in `registry/` holds
 * ordinary Kubernetes objects and is read again when it changes. Several agents may share the
 * directory; each writes only `registry/<its node>.yaml`.
 *
 * @throws {TypeError} when the node's name cannot be a file's name.
 */
export function openClusterDirectory(options: DirectoryOptions): Cluster {
  requireNodeName(options.nodeName);
  return new ClusterDirectory(options);
}

class ClusterDirectory implements Cluster {
  readonly #directory: string;
  readonly #nodeName: string;
  readonly #files: DirectoryFiles;
  readonly #trustDomain: string;
  readonly #parts = new WeakMap<RegistrySlice, RegistryPart>();
  #watcher: Deno.FsWatcher | undefined;
  #closed = false;
  /** Resolved when there may be something new to read. */
  #nudge = Promise.withResolvers<void>();
  #following: Promise<void> = Promise.resolve();
  #publishing: Promise<void> = Promise.resolve();

  constructor({ directory, nodeName, trustDomain }: DirectoryOptions) {
    this.#directory = directory;
    this.#nodeName = nodeName;
    this.#trustDomain = trustDomain;
    this.#files = new DirectoryFiles(directory);
  }

  async start(onChange: (objects: ClusterObjects) => void): Promise<void> {
    this.#watch(); // before the first read: what changes during it is not missed
    try {
      await this.#files.read();
      if (!this.#files.listed) {
        const [problem] = this.#files.problems();
        throw new Error(`Cannot start with ${this.#directory}: ${problem?.message}`);
      }
      onChange(this.#objects());
    } catch (error) {
      await this.close();
      throw error;
    }
    this.#following = this.#follow(onChange);
  }

  publish(entries: readonly RegistryEntry[]): Promise<void> {
    return this.#next(() => this.#write(entries));
  }

  withdraw(): Promise<void> {
    return this.#next(() => Deno.remove(this.#file).catch(ignoreNotFound));
  }

  /** The files belong to whoever wrote them; `kube-gateway status` tells the same. */
  tell(): Promise<void> {
    return Promise.resolve();
  }

  problems(): readonly ClusterProblem[] {
    return this.#files.problems();
  }

  /** A directory does not fall silent. */
  readonly silence = 0;

  isBeingUninstalled(): boolean {
    return true;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#watcher?.close();
    this.#watcher = undefined;
    this.#nudge.resolve();
    await this.#following;
    await this.#publishing.catch(() => {}); // its caller has been told
  }

  #objects(): ClusterObjects {
    const { slices, ...others } = this.#files.objects();
    return {
      ...others,
      registry: slices.map((slice) => this.#part(slice)),
    };
  }

  #part(slice: RegistrySlice): RegistryPart {
    const part = this.#parts.get(slice) ?? partOf(slice, this.#trustDomain);
    this.#parts.set(slice, part);
    return part;
  }

  async #follow(onChange: (objects: ClusterObjects) => void): Promise<void> {
    while (!this.#closed) {
      await this.#nudged(this.#files.unsettled ? SETTLE_MS : POLL_MS);
      if (this.#closed) return;
      await delay(COALESCE_MS); // a copy of many files is one change
      this.#nudge = Promise.withResolvers();
      if (this.#closed) return;
      try {
        if (await this.#files.read()) onChange(this.#objects());
      } catch (error) {
        log.error("A change of the cluster's objects could not be handled: {error}", {
          error: errorText(error),
        });
      }
    }
  }

  async #nudged(atLatestMs: number): Promise<void> {
    const timer = setTimeout(this.#nudge.resolve, atLatestMs);
    await this.#nudge.promise;
    clearTimeout(timer);
  }

  /**
   * Reports make it fast; without them (no inotify watches left) the fallback every 2 s still
   * works.
   */
  #watch(): void {
    try {
      this.#watcher = Deno.watchFs(this.#directory);
    } catch (error) {
      log.warn("Cannot watch {directory}, reading it every 2 s instead: {error}", {
        directory: this.#directory,
        error: errorText(error),
      });
      return;
    }
    const events = this.#watcher;
    (async () => {
      // Any event will do: reading is not among those that Deno reports.
      for await (const _ of events) this.#nudge.resolve();
    })().catch((error) =>
      log.warn("No more reports of changes: {error}", { error: errorText(error) })
    );
  }

  /** Published one after the other, in order. */
  #next(write: () => Promise<void>): Promise<void> {
    this.#publishing = this.#publishing.then(write, write);
    return this.#publishing;
  }

  get #file(): string {
    return join(this.#directory, "registry", `${this.#nodeName}.yaml`);
  }

  async #write(entries: readonly RegistryEntry[]): Promise<void> {
    const file = this.#file;
    const folder = dirname(file);
    // Compared with the file, not with what was written last: it heals what someone else changed.
    const before = await Deno.readTextFile(file).catch(ignoreNotFound);
    const text = registryText(this.#nodeName, entries);
    if (before === text || (before === undefined && entries.length === 0)) return;
    await Deno.mkdir(folder, { recursive: true });
    const temporary = join(folder, `.${this.#nodeName}.${Deno.pid}.tmp`);
    try {
      await Deno.writeTextFile(temporary, text);
      await Deno.rename(temporary, file); // readers see the old file or the new one, never a part
    } catch (cause) {
      await Deno.remove(temporary).catch(() => {});
      throw new Error(`Cannot publish the registry in ${file}`, { cause });
    }
  }
}

/**
 * The node's part of the registry, in which both families have a slice: what is empty says that
 * nobody is left.
 */
function registryText(node: string, entries: readonly RegistryEntry[]): string {
  const slices = new Map(slicesOf(node, entries).map((slice) => [slice.metadata.name, slice]));
  for (const empty of [emptySlice(node, 4, 0), emptySlice(node, 6, 0)]) {
    if (!slices.has(empty.metadata.name)) slices.set(empty.metadata.name, empty);
  }
  return [...slices.values()].map((slice) => stringify(slice, YAML)).join("---\n");
}

function ignoreNotFound(error: unknown): undefined {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}

/** Long lines stay whole and nothing becomes an alias, so that other tools find it easy to read. */
const YAML = { lineWidth: 0, aliasDuplicateObjects: false } as const;

const log = logger("cluster");

const COALESCE_MS = 20;
const POLL_MS = 2000;
/** After a file was read so soon after its last change that a further one might look the same. */
const SETTLE_MS = 100;
