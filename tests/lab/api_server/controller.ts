import { Account, Accounts, type BoundPod, podClaims } from "./accounts.ts";
import type { ServerState, WatchAction } from "./admin.ts";
import { makeCertificates } from "./certificates.ts";
import { ConnectionCounter } from "./connection_counter.ts";
import {
  pathOfCollection,
  pathOfReference,
  type Reference,
  resourceNamed,
  throughDoor,
} from "./door.ts";
import type { LoggedRequest } from "./gate.ts";
import { HOST, type Running, type Spawner } from "./host_process.ts";
import type { Misbehaviour } from "./misbehaviour.ts";
import type { KubeObject } from "./objects.ts";
import { pathOf, resourceOfKind } from "./resources.ts";
import type { TokenEntry } from "./users.ts";

export interface ApiServerOptions {
  /** A lab's node, pod or outside; the test's own surroundings when not given. */
  place?: Spawner;
  /** The address to listen on and be reached by; "127.0.0.1" when not given. */
  address?: string;
  /** 0 (as when not given) for any; a restarted server keeps it. */
  port?: number;
  /** For state, keys and tokens; a temporary one, removed at the end, when not given. */
  directory?: string;
  /** Between bookmarks; a minute when not given. */
  bookmarkMs?: number;
  /** How many events of each resource are remembered; 10,000 when not given. */
  history?: number;
  /** The URL of a module whose default export is an `Admission`, such as `POLICIES`. */
  admission?: string;
}

/** The admission module that evaluates the policies of daemonset/. */
export const POLICIES = new URL("policies.ts", import.meta.url).href;

/**
 * The API server for tests, from the outside: a process that can be killed, stopped and started
 * again.
 */
export class ApiServer implements AsyncDisposable {
  readonly accounts: Accounts;
  #process?: Running;
  #port: number;

  static async start(options: ApiServerOptions = {}): Promise<ApiServer> {
    const directory = options.directory ?? await Deno.makeTempDir({ prefix: "kgw-api-" });
    const address = options.address ?? "127.0.0.1";
    const names = ["kubernetes", "kubernetes.default.svc", "localhost"];
    const { ca, certificate, key } = await makeCertificates(
      [...new Set([address, "127.0.0.1"])],
      names,
    );
    await Deno.writeTextFile(`${directory}/ca.crt`, ca);
    await Deno.writeTextFile(`${directory}/server.crt`, certificate);
    await Deno.writeTextFile(`${directory}/server.key`, key);
    const server = new ApiServer(directory, address, ca, options);
    try {
      await server.#spawn();
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(
    readonly directory: string,
    readonly address: string,
    /** The CA of the server's certificate, PEM. */
    readonly ca: string,
    private readonly options: ApiServerOptions,
  ) {
    this.#port = options.port ?? 0;
    this.accounts = new Accounts(directory, () => this.url, ca);
  }

  get url(): string {
    return `https://${this.#hostPort}`;
  }

  get port(): number {
    return this.#port;
  }

  get pid(): number {
    if (!this.#process) throw new Error("The API server for tests does not run");
    return this.#process.pid;
  }

  // --- who may ask ---

  async user(
    username: string,
    groups: string[] = [],
    more: Partial<TokenEntry> = {},
  ): Promise<Account> {
    return await this.accounts.add({ username, groups, ...more });
  }

  /** `pod` is what the token is bound to; one that is bound to nothing carries no node claim. */
  async serviceAccount(
    namespace: string,
    name: string,
    pod?: BoundPod,
    more: Partial<TokenEntry> = {},
  ): Promise<Account> {
    const extra = pod === undefined ? {} : { extra: podClaims(pod) };
    // As the TokenRequest API, but for accounts that a test has not made: their tokens are good for
    // ever.
    const accounts = await this.list("serviceaccounts", namespace);
    const uid = accounts.find(({ metadata }) => metadata.name === name)?.metadata.uid;
    const requireAccount = uid === undefined ? {} : { requireAccount: uid };
    const username = `system:serviceaccount:${namespace}:${name}`;
    return await this.accounts.add({
      username,
      groups: [],
      ...extra,
      ...requireAccount,
      ...more,
    });
  }

  // --- objects, as a cluster administrator, past all misbehaviour ---

  /** Creates the object, or merges it into the one that is there (its status is not touched). */
  async apply<T = KubeObject>(given: object): Promise<T> {
    const object = given as KubeObject;
    const resource = resourceOfKind(object.apiVersion, object.kind);
    const namespace = object.metadata.namespace ?? "default";
    const path = pathOf(resource, namespace, object.metadata.name);
    return await this.#ask("PATCH", path, object, "application/apply-patch+yaml") as T;
  }

  /** @throws {ApiError} 409 when it exists. */
  async create<T = KubeObject>(given: object): Promise<T> {
    const object = given as KubeObject;
    const resource = resourceOfKind(object.apiVersion, object.kind);
    return await this.#ask("POST", pathOfCollection(resource, object), object) as T;
  }

  /** PUT. @throws {ApiError} 409 with a stale resourceVersion. */
  async replace<T = KubeObject>(given: object): Promise<T> {
    const object = given as KubeObject;
    const resource = resourceOfKind(object.apiVersion, object.kind);
    const namespace = object.metadata.namespace ?? "default";
    return await this.#ask("PUT", pathOf(resource, namespace, object.metadata.name), object) as T;
  }

  /** A merge patch; `subresource` is for example "status". */
  async patch<T = KubeObject>(of: Reference, patch: object, subresource = ""): Promise<T> {
    const path = `${pathOfReference(of)}${subresource && `/${subresource}`}`;
    return await this.#ask("PATCH", path, patch, "application/merge-patch+json") as T;
  }

  /** What `kubectl annotate` does; undefined takes the annotation away. */
  async annotate(of: Reference, key: string, value: string | undefined): Promise<void> {
    await this.patch(of, { metadata: { annotations: { [key]: value ?? null } } });
  }

  async delete(of: Reference, options: { gracePeriodSeconds?: number } = {}): Promise<void> {
    await this.#ask("DELETE", pathOfReference(of), options);
  }

  async get<T = KubeObject>(of: Reference): Promise<T> {
    return await this.#ask("GET", pathOfReference(of)) as T;
  }

  /** All objects of a resource (in all namespaces when none is given). */
  async list<T = KubeObject>(resource: string, namespace = "", query = ""): Promise<T[]> {
    const path = pathOf(resourceNamed(resource), namespace);
    const { items } = await this.#ask("GET", `${path}${query && `?${query}`}`) as { items: T[] };
    return items;
  }

  /** Stores very many objects as they are: no defaults, no checks. */
  async seed(objects: object[]): Promise<void> {
    const step = 1000;
    for (let at = 0; at < objects.length; at += step) {
      await this.#admin("seed", objects.slice(at, at + step));
    }
  }

  /** As `seed`, of one object under many names: large ones take long to send. */
  async seedCopies(object: object, names: string[]): Promise<void> {
    await this.#admin("seed-copies", { object, names });
  }

  // --- trouble ---

  /** Killed as by a crash: kill -9. Everything that was answered is in the state file. */
  async kill(): Promise<void> {
    await this.#process?.stop("SIGKILL");
    this.#process = undefined;
  }

  /** Starts it again after `kill()`, on the same port; its history begins anew. */
  async restart(): Promise<void> {
    await this.kill();
    await this.#spawn();
  }

  /** Its state as it is now; `putBack` makes it that again, as etcd is restored from a backup. */
  async backUp(): Promise<{ putBack(): Promise<void> }> {
    const path = `${this.directory}/state.jsonl`;
    const state = await Deno.readFile(path);
    return {
      putBack: async () => {
        await this.kill();
        await Deno.writeFile(path, state);
        await this.restart();
      },
    };
  }

  /** SIGSTOP: connections stay, and the kernel even accepts new ones, but nobody answers. */
  pause(): void {
    this.#process?.kill("SIGSTOP");
  }

  resume(): void {
    this.#process?.kill("SIGCONT");
  }

  /** From now on the server does this; disposing the answer ends it. A restart ends all. */
  async misbehave(what: Misbehaviour): Promise<AsyncDisposable> {
    const id = await this.#admin("misbehave", what);
    return { [Symbol.asyncDispose]: async () => void await this.#admin("behave", id) };
  }

  /** Ends all misbehaviour. */
  async behave(): Promise<void> {
    await this.#admin("behave");
  }

  /**
   * Forgets the history: watches from any version but the newest, and list tokens, are answered
   * with 410.
   */
  async compact(): Promise<void> {
    await this.#admin("compact");
  }

  /** @returns how many open watches it hit. */
  async disturbWatches(action: WatchAction): Promise<number> {
    return await this.#admin("watches", action) as number;
  }

  async closeConnections(): Promise<void> {
    await this.#admin("close-connections");
  }

  /** Half-open: connections stay and nothing passes, as if packets were dropped. */
  async stallConnections({ newOnes = true } = {}): Promise<void> {
    await this.#admin("stall", { newOnes });
  }

  async resumeConnections(): Promise<void> {
    await this.#admin("resume");
  }

  /** While the server is killed: takes its port, and counts and closes each connection. */
  async countConnectionsWhileDown(): Promise<ConnectionCounter> {
    return await ConnectionCounter.start(this.options.place ?? HOST, this.#hostPort);
  }

  // --- what was asked of it ---

  /** The requests since its start, oldest first, without those of this class. */
  async requests(
    of: { user?: string; verb?: string; path?: RegExp; since?: number } = {},
  ): Promise<LoggedRequest[]> {
    const all = await this.#admin("requests") as LoggedRequest[];
    return all.filter(({ user, verb, path, time }) =>
      (of.user ?? user) === user && (of.verb ?? verb) === verb && (of.path ?? / ?/).test(path) &&
      time >= (of.since ?? 0)
    );
  }

  async state(): Promise<ServerState> {
    return await this.#admin("state") as ServerState;
  }

  logTail(count = 30): string {
    return this.#process?.stderr.tail(count) || "(no log)";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    if (this.options.directory === undefined) {
      await Deno.remove(this.directory, { recursive: true });
    }
  }

  get #hostPort(): string {
    const host = this.address.includes(":") ? `[${this.address}]` : this.address;
    return `${host}:${this.#port}`;
  }

  async #spawn(): Promise<void> {
    const { place = HOST, bookmarkMs, history, admission } = this.options;
    this.#process = place.spawn([
      ...[Deno.execPath(), "run", "-A", "--quiet", MAIN],
      ...["--listen", this.#hostPort, "--directory", this.directory],
      ...(bookmarkMs === undefined ? [] : ["--bookmark-ms", `${bookmarkMs}`]),
      ...(history === undefined ? [] : ["--history", `${history}`]),
      ...(admission === undefined ? [] : ["--admission", admission]),
      "--until-stdin-ends",
    ], { stdin: true });
    const { stdout, stderr } = this.#process;
    const line = await stdout.wait((line) => line.includes('"listening"'), 20_000)
      .catch((cause) => {
        throw new Error(`The API server for tests did not start:\n${stderr.tail()}`, { cause });
      });
    this.#port = (JSON.parse(line) as { port: number }).port;
  }

  async #admin(action: string, body?: unknown): Promise<unknown> {
    return await this.#ask("POST", `/admin/${action}`, body);
  }

  async #ask(method: string, path: string, body?: unknown, type?: string): Promise<unknown> {
    return await throughDoor(`${this.directory}/admin.sock`, method, path, body, type);
  }
}

const MAIN = new URL("main.ts", import.meta.url).pathname;
