import { join } from "node:path";
import { logger, logSentence } from "../log.ts";
import { releaseMemorySoon } from "../memory.ts";
import { compare } from "../order.ts";
import type { ClusterObjects, ClusterProblem } from "../cluster/cluster.ts";
import {
  MIRROR_ANNOTATION,
  type Namespace,
  type Pod,
  type RegistrySlice,
} from "../cluster/objects.ts";
import { DENY_LIST, type DenyList, NOBODY_DENIED } from "../cluster/deny_list.ts";
import type { NodeFacts } from "../cluster/nodes.ts";
import type { Service, ServiceEndpoints } from "../cluster/services.ts";
import { FileError, type LocatedObject, parseObjectsFile } from "./objects_file.ts";

/**
 * The files' objects: as {@link ClusterObjects}, but the registry's slices have not been judged.
 */
export interface FileObjects extends Omit<ClusterObjects, "registry"> {
  readonly slices: readonly RegistrySlice[];
}

/**
 * What is known of a cluster directory's files. A file that cannot be read keeps the objects that
 * it last gave: a typo, a full disk or an unmounted directory never looks like the deletion of
 * pods.
 */
export class DirectoryFiles {
  readonly #directory: string;
  /** By path, relative to the directory. */
  readonly #files = new Map<string, KnownFile>();
  #listing: ClusterProblem | undefined;
  #duplicates: ClusterProblem[] = [];
  #reported = new Set<string>();
  #objects = EMPTY;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Whether the directory has ever been listed. */
  listed = false;

  /**
   * Whether a file was read so soon after its last change that a further one might look the same.
   */
  unsettled = false;

  /** The objects as of the last `read`. */
  objects(): FileObjects {
    return this.#objects;
  }

  /** What was wrong at the last `read`, by file. */
  problems(): ClusterProblem[] {
    const ofFiles = [...this.#files.values()].flatMap(({ problem }) => problem ?? []);
    return [...(this.#listing ? [this.#listing] : []), ...ofFiles, ...this.#duplicates];
  }

  /**
   * Reads what has changed since the last call, which must have ended. Never throws: what is wrong
   * becomes a problem, and is logged once.
   *
   * @returns whether the objects are others than before.
   */
  async read(): Promise<boolean> {
    const paths = await this.#list();
    if (paths === undefined) { // an unreadable directory says nothing about the objects
      this.#log();
      return false;
    }
    let changed = !this.listed;
    this.listed = true;
    this.unsettled = false;
    for (const path of this.#files.keys()) {
      if (!paths.includes(path)) changed = this.#files.delete(path) || changed;
    }
    for (const path of paths) changed = await this.#readFile(path) || changed;
    if (changed) this.#merge();
    this.#log();
    return changed;
  }

  async #list(): Promise<string[] | undefined> {
    try {
      const paths = await namesIn(this.#directory);
      const registry = await namesIn(join(this.#directory, "registry"))
        .catch((error) => {
          if (error instanceof Deno.errors.NotFound) return [];
          throw error;
        });
      paths.push(...registry.map((name) => `registry/${name}`));
      if (paths.length > MAX_FILES) throw new Error(`more than ${MAX_FILES} files`);
      this.#listing = undefined;
      return paths.sort();
    } catch (error) {
      this.#listing = { file: ".", message: `cannot be listed: ${(error as Error).message}` };
      return undefined;
    }
  }

  /** @returns whether the file's objects are others than before, or it is the first time. */
  async #readFile(path: string): Promise<boolean> {
    const known = this.#files.get(path);
    const file: KnownFile = known ?? { signature: "", digest: "", objects: undefined };
    try {
      const info = await Deno.stat(join(this.#directory, path));
      if (!info.isFile) return this.#files.delete(path); // a directory or a pipe holds no objects
      // As git does: a file changed within the clock's grain of being read may change again unseen.
      const settled = Math.abs(Date.now() - (info.mtime?.getTime() ?? 0)) > SETTLED_AFTER_MS;
      this.unsettled ||= !settled;
      const signature = settled ? signatureOf(info) : "";
      if (signature !== "" && signature === file.signature) return false;
      const lastDigest = file.digest;
      file.signature = signature;
      file.digest = "";
      this.#files.set(path, file);
      const bytes = await readBounded(join(this.#directory, path));
      file.digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
      if (file.digest === lastDigest) return false;
      if (bytes.length > LARGE_FILE) releaseMemorySoon();
      file.objects = parseObjectsFile(path, decode(bytes));
      file.problem = undefined;
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return this.#files.delete(path);
      file.problem = {
        file: path,
        message: (error as Error).message,
        ...(error instanceof FileError && error.line !== undefined ? { line: error.line } : {}),
      };
      // A failed read is tried again each time.
      if (!(error instanceof FileError)) file.signature = "";
      this.#files.set(path, file);
      return known === undefined; // the state is no longer complete
    }
  }

  /** One state from all files; of the same object in two places the later file's stands. */
  #merge(): void {
    const pods = new Map<string, Placed<Pod>>();
    const namespaces = new Map<string, Placed<Namespace>>();
    const slices = new Map<string, Placed<RegistrySlice>>();
    const handlers = new Map<string, Placed<string>>();
    const nodes = new Map<string, Placed<NodeFacts>>();
    const denyLists = new Map<string, Placed<DenyList>>();
    const services = new Map<string, Placed<Service>>();
    const endpoints = new Map<string, Placed<ServiceEndpoints>>();
    this.#duplicates = [];
    for (const [file, { objects = [] }] of [...this.#files].sort(byPath)) {
      for (const { line, ...kept } of objects) {
        if (kept.kind === "Pod") {
          const { uid, namespace, name } = kept.pod;
          const placed = { object: withAccount(kept.pod), file, line };
          const names = [`name ${namespace}/${name}`, `uid ${uid}`];
          this.#place(pods, names, `Pod ${namespace}/${name}`, placed);
        } else if (kept.kind === "Namespace") {
          const { name } = kept.namespace;
          const placed = { object: kept.namespace, file, line };
          this.#place(namespaces, [name], `Namespace ${name}`, placed);
        } else if (kept.kind === "Node") {
          const { name } = kept.node;
          this.#place(nodes, [name], `Node ${name}`, { object: kept.node, file, line });
        } else if (kept.kind === "ConfigMap") {
          const placed = { object: kept.denied, file, line };
          this.#place(denyLists, [DENY_LIST], `ConfigMap ${DENY_LIST}`, placed);
        } else if (kept.kind === "RuntimeClass") {
          const placed = { object: kept.handler, file, line };
          this.#place(handlers, [kept.name], `RuntimeClass ${kept.name}`, placed);
        } else if (kept.kind === "Service") {
          const placed = { object: kept.service, file, line };
          this.#place(services, [kept.key], `Service ${kept.key}`, placed);
        } else if (kept.kind === "Endpoints") {
          const placed = { object: kept.endpoints, file, line };
          this.#place(endpoints, [kept.key], `EndpointSlice ${kept.key}`, placed);
        } else {
          const name = `${kept.slice.namespace}/${kept.slice.name}`;
          this.#place(slices, [name], `EndpointSlice ${name}`, { object: kept.slice, file, line });
        }
      }
    }
    this.#objects = {
      pods: [...new Set(pods.values())].map(({ object }) => object),
      namespaces: objectsOf(namespaces),
      hasNamespaces: false,
      runtimeHandlers: objectsOf(handlers),
      nodes: objectsOf(nodes),
      denied: denyLists.get(DENY_LIST)?.object ?? NOBODY_DENIED,
      unread: [],
      services: objectsOf(services),
      endpoints: objectsOf(endpoints),
      slices: [...slices.values()].map(({ object }) => object),
      complete: [...this.#files.values()].every(({ objects }) => objects !== undefined),
    };
  }

  /** Puts an object under all its keys, in place of whatever had one of them. */
  #place<T>(all: Map<string, Placed<T>>, keys: string[], what: string, placed: Placed<T>): void {
    for (const earlier of new Set(keys.flatMap((key) => all.get(key) ?? []))) {
      for (const [key, value] of all) if (value === earlier) all.delete(key);
      const where = placed.line === undefined ? placed.file : `${placed.file}:${placed.line}`;
      this.#duplicates.push({
        file: earlier.file,
        ...(earlier.line === undefined ? {} : { line: earlier.line }),
        message: `${what} stands at ${where} again, which is used`,
      });
    }
    for (const key of keys) all.set(key, placed);
  }

  /** Each problem once, until it is gone or its file has changed. */
  #log(): void {
    const reported = new Set<string>();
    for (const { file, line, message } of this.problems()) {
      const text = `${file}${line === undefined ? "" : `:${line}`}: ${message}`;
      const key = `${text}\n${this.#files.get(file)?.digest ?? ""}`;
      if (!this.#reported.has(key)) logSentence(log, "warning", text, { file, line });
      reported.add(key);
    }
    this.#reported = reported;
  }
}

function objectsOf<T>(placed: ReadonlyMap<string, Placed<T>>): Map<string, T> {
  return new Map([...placed].map(([key, { object }]) => [key, object]));
}

const EMPTY: FileObjects = {
  pods: [],
  namespaces: new Map(),
  hasNamespaces: false,
  runtimeHandlers: new Map(),
  slices: [],
  nodes: new Map(),
  denied: NOBODY_DENIED,
  unread: [],
  services: new Map(),
  endpoints: new Map(),
  complete: false,
};

interface KnownFile {
  /** What the file looked like when it was read, empty when it must be read again anyway. */
  signature: string;
  /** SHA-256 of the contents. */
  digest: string;
  /** The last good ones; undefined while there have been none. */
  objects: LocatedObject[] | undefined;
  problem?: ClusterProblem | undefined;
}

interface Placed<T> {
  object: T;
  file: string;
  line: number | undefined;
}

async function namesIn(directory: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(directory)) {
    if (/\.(?:yaml|yml|json)$/.test(name) && !name.startsWith(".")) names.push(name);
  }
  return names;
}

function signatureOf({ dev, ino, size, mtime, ctime }: Deno.FileInfo): string {
  return [dev, ino, size, mtime?.getTime(), ctime?.getTime()].join(" ");
}

/** At most `MAX_FILE_BYTES`, also when the file grows while it is read. */
async function readBounded(path: string): Promise<Uint8Array<ArrayBuffer>> {
  using file = await Deno.open(path);
  const chunks: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const chunk = new Uint8Array(65_536);
    const read = await file.read(chunk);
    if (read === null) break;
    chunks.push(chunk.subarray(0, read));
    length += read;
    if (length > MAX_FILE_BYTES) throw new FileError(`larger than ${MAX_FILE_BYTES} bytes`);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new FileError("it is not UTF-8 text", undefined, { cause });
  }
}

function byPath([a]: [string, KnownFile], [b]: [string, KnownFile]): number {
  return compare(a, b);
}

const log = logger("cluster");

/**
 * As an API server fills it in (its admission plugin ServiceAccount), which leaves static pods'
 * mirrors alone.
 */
function withAccount(pod: Pod): Pod {
  const isMirror = Object.hasOwn(pod.annotations, MIRROR_ANNOTATION);
  return pod.serviceAccount === "" && !isMirror ? { ...pod, serviceAccount: "default" } : pod;
}

const MAX_FILES = 4096;
const MAX_FILE_BYTES = 8 * 1024 * 1024;
/** What takes more is worth a collection of its own: an idle agent would keep it for minutes. */
const LARGE_FILE = 256 * 1024;
/** Coarser than the timestamps of any local file system. */
const SETTLED_AFTER_MS = 50;
