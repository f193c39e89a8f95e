/**
 * The cluster's certificate authority: follows the requests for its signer name and takes each to
 * its end. Of several signers the one that holds the Lease acts; the others are ready to.
 */
import "reflect-metadata"; // @peculiar/x509 needs it loaded first
import * as x509 from "@peculiar/x509";
import { errorText } from "../error_text.ts";
import { CA_SECRET, REQUESTS_PATH } from "../identity/signing_names.ts";
import type { ApiClient } from "../kubernetes/api.ts";
import { type WatchedList, watchList } from "../kubernetes/watch.ts";
import { logger } from "../log.ts";
import { pause } from "../waiting.ts";
import { DENY_LIST, type DenyList, NOBODY_DENIED, readDenyList } from "../cluster/deny_list.ts";
import { readPod } from "../cluster/objects.ts";
import { AddressBook, holderOf } from "./address_book.ts";
import { BundleStore } from "./bundle_store.ts";
import { openCa, readCa } from "./ca.ts";
import { readNode } from "../cluster/nodes.ts";
import { RequestHandler } from "./handler.ts";
import { Candidacy, type LeaseTimes } from "./lease.ts";
import { awaited, type OpenRequest, readRequest } from "./open_requests.ts";
import { WorkQueue } from "./queue.ts";
import { Rotation } from "./rotation.ts";
import { Word } from "./word.ts";

const log = logger("signer");

export interface SignerOptions {
  readonly api: ApiClient;
  /** The gateway's: CA, bundle and Lease are there, and the agents' service account. */
  readonly namespace: string;
  readonly signerName: string;
  readonly agentServiceAccount: string;
  readonly trustDomain: string;
  /** The longest, and the usual, lifetime of a certificate. */
  readonly certificateSeconds: number;
  /** This replica's name; no other may have it. */
  readonly identity: string;
  /** How long a new root is in the bundle before it signs. */
  readonly propagationMilliseconds?: number;
  readonly leaseTimes?: LeaseTimes;
  /** Between two looks at the bundle. */
  readonly reviewMilliseconds?: number;
}

/** What probes ask. */
export class SignerHealth {
  leading = false;
  /** Why the Secret's CA is not in use. */
  caProblem: string | undefined = "it has not read the CA and the requests yet";
  /** Why the trust bundle is not in use as it is in its ConfigMap. */
  bundleProblem: string | undefined;

  /** Why it could not do its work now if it led; undefined when it could. */
  get problem(): string | undefined {
    return this.caProblem ?? this.bundleProblem;
  }
}

/** Runs until `stop` resolves; gives the Lease back. */
export async function runSigner(
  options: SignerOptions,
  stop: Promise<void>,
  health: SignerHealth = new SignerHealth(),
): Promise<void> {
  const store = new BundleStore(options.api, options.namespace);
  const word = new Word(store);
  const rotation = new Rotation(store, {
    propagationMilliseconds: options.propagationMilliseconds ?? 60_000,
    ttlSeconds: options.certificateSeconds,
  });
  const stopped = new AbortController();
  const end = stop.finally(() => stopped.abort());
  if (!await offerFirstCa(options, rotation, health, stopped.signal)) return;
  await using _signer = new Signer(options, rotation, health, word);
  await end;
}

/** Retries until there is a CA; false when it is time to stop before that. */
async function offerFirstCa(
  { api, namespace, trustDomain }: SignerOptions,
  rotation: Rotation,
  health: SignerHealth,
  signal: AbortSignal,
): Promise<boolean> {
  for (let delay = 500; !signal.aborted; delay = Math.min(delay * 2, 10_000)) {
    try {
      rotation.offer(await openCa(api, namespace, trustDomain, signal));
      health.caProblem = undefined;
      return true;
    } catch (error) {
      if (signal.aborted) break;
      health.caProblem = errorText(error);
      log.error("the CA cannot be read: {error}", { error: errorText(error) });
    }
    await pause(delay, signal).catch(() => {}); // stopped
  }
  return false;
}

/**
 * A signer that has a CA: a candidate for the Lease that knows which requests wait, and works on
 * them while it leads. Two watches and the candidacy call its methods; all state is in its fields.
 */
class Signer implements AsyncDisposable {
  readonly #options: SignerOptions;
  readonly #rotation: Rotation;
  readonly #health: SignerHealth;
  readonly #word: Word;
  /** The open requests as the watch has seen them last; by name. */
  #seen: ReadonlyMap<string, OpenRequest> = new Map();
  /**
   * The names of the requests that somebody waits for. Every candidate knows them, so that a new
   * leader begins at once.
   */
  #awaited: ReadonlySet<string> = new Set();
  readonly #addressBook = new AddressBook();
  /** Undefined until the list has been read. */
  #denied: DenyList | undefined;
  /** The CA's Secret as the watch has seen it last. */
  #secret: unknown;
  readonly #candidacy: Candidacy;
  readonly #handler: RequestHandler;
  readonly #queue: WorkQueue;
  readonly #watches: readonly WatchedList[];
  readonly #reviews: ReturnType<typeof setInterval>;

  constructor(options: SignerOptions, rotation: Rotation, health: SignerHealth, word: Word) {
    this.#options = options;
    this.#word = word;
    this.#rotation = rotation;
    this.#health = health;
    const { api, namespace } = options;
    this.#candidacy = new Candidacy({
      api,
      namespace,
      name: LEASE,
      identity: options.identity,
      times: options.leaseTimes,
      onLead: () => this.#lead(),
    });
    this.#handler = new RequestHandler({
      x509,
      api,
      seen: (name) => this.#seen.get(name)?.facts,
      addressBook: this.#addressBook,
      denied: () => this.#denied,
      trustDomain: options.trustDomain,
      rotation,
      candidacy: this.#candidacy,
      settings: {
        signerName: options.signerName,
        requester: `system:serviceaccount:${namespace}:${options.agentServiceAccount}`,
        ttlSeconds: options.certificateSeconds,
      },
    });
    this.#queue = new WorkQueue({
      concurrency: CONCURRENCY,
      backoff: { first: 100, most: 5_000 },
      work: (name) => this.#handler.handle(name),
    });
    this.#watches = [
      watchList(api, {
        name: "signing requests",
        path: REQUESTS_PATH,
        query: { fieldSelector: `spec.signerName=${options.signerName}` },
        read: readRequest,
        onChange: (requests) => this.#follow(requests),
      }),
      watchList(api, {
        name: "CA",
        path: `/api/v1/namespaces/${namespace}/secrets`,
        query: { fieldSelector: `metadata.name=${CA_SECRET}` },
        read: (secret) => secret,
        onChange: (secrets) => void this.#replaceCa(secrets.values().next().value),
      }),
      watchList(api, {
        name: "pods",
        path: "/api/v1/pods",
        read: (pod) => holderOf(readPod(pod)),
        onChange: (holders) => this.#addressBook.pods(holders),
      }),
      watchList(api, {
        name: "deny list",
        path: `/api/v1/namespaces/${namespace}/configmaps`,
        query: { fieldSelector: `metadata.name=${DENY_LIST}` },
        read: (value) => readDenyList(value),
        onChange: (lists) => this.#deny(lists.values().next().value ?? NOBODY_DENIED),
      }),
      watchList(api, {
        name: "nodes",
        path: "/api/v1/nodes",
        read: readNode,
        onChange: (nodes) => this.#addressBook.nodes(nodes),
      }),
    ];
    this.#reviews = setInterval(() => this.#review(), options.reviewMilliseconds ?? 10_000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#reviews);
    await Promise.all([...this.#watches.map((watch) => watch.close()), this.#queue.close()]);
    await this.#candidacy.close();
  }

  #lead(): void {
    void this.#review();
    for (const name of this.#awaited) this.#sign(name);
  }

  #follow(requests: ReadonlyMap<string, OpenRequest>): void {
    const before = this.#awaited;
    this.#seen = requests;
    this.#awaited = awaited(requests.values());
    for (const name of before) {
      if (this.#awaited.has(name)) continue;
      this.#queue.forget(name);
      this.#handler.forget(name);
    }
    if (this.#candidacy.remaining() === 0) return;
    for (const name of this.#awaited) if (!before.has(name)) this.#sign(name);
  }

  #sign(name: string): void {
    this.#queue.add(name, this.#seen.get(name)?.requester ?? "");
  }

  #deny(denied: DenyList): void {
    this.#denied = denied;
    for (const problem of denied.problems) {
      log.error("ConfigMap {name}: {problem}", { name: DENY_LIST, problem });
    }
  }

  /** The Secret has changed. One that cannot be used leaves the CA that is. */
  async #replaceCa(secret: unknown): Promise<void> {
    this.#secret = secret;
    if (secret === undefined) {
      log.error("the CA's Secret is gone: signing goes on with its CA");
      return;
    }
    try {
      const ca = await readCa(secret, this.#options.trustDomain);
      if (this.#secret !== secret) return; // reading takes a while: another is there by now
      this.#rotation.offer(ca);
      this.#health.caProblem = undefined;
    } catch (error) {
      if (this.#secret !== secret) return;
      this.#health.caProblem = errorText(error);
      log.error("the CA's Secret is not used: {error}", { error: errorText(error) });
      return;
    }
    await this.#review();
  }

  /** Never throws. */
  async #review(): Promise<void> {
    const remaining = this.#candidacy.remaining();
    this.#health.leading = remaining > 0;
    if (remaining === 0) return;
    try {
      await this.#rotation.review(Math.min(remaining, REVIEW_MILLISECONDS));
      this.#health.bundleProblem = this.#rotation.damage;
    } catch (error) {
      log.error("the trust bundle could not be brought up to date: {error}", {
        error: errorText(error),
      });
    }
    const problem = this.#health.problem ?? this.#unread() ?? this.#rotation.expiry(new Date());
    await this.#word.say(problem, REVIEW_MILLISECONDS);
  }

  /** Nothing is signed before all lists have been read, and by old ones nothing good. */
  #unread(): string | undefined {
    const unread = this.#watches.find((list) =>
      performance.now() - (list.unheard()?.since ?? Infinity) > UNREAD_MILLISECONDS
    );
    return unread && `its list of ${unread.name} cannot be read: ${unread.unheard()?.why}`;
  }
}

/** The Lease by which signers agree on a leader. */
export const LEASE = "kube-gateway-signer";

/**
 * CONCURRENCY is how many requests are worked on at once; most of that time is waiting for the API
 * server.
 */
const CONCURRENCY = 16;

const UNREAD_MILLISECONDS = 30_000;

/** Until the bundle must have been read and written. */
const REVIEW_MILLISECONDS = 5_000;
