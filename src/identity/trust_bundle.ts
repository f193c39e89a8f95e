import * as v from "valibot";
import type { ApiClient } from "../kubernetes/api.ts";
import { errorText } from "../error_text.ts";
import { type WatchedList, watchList } from "../kubernetes/watch.ts";
import { logger } from "../log.ts";
import { Certificate } from "../native/certificate.ts";
import { IssuingError } from "./issuer.ts";
import { decodePem } from "./pem.ts";
import { signerProblem, WORD_ANNOTATION } from "./signer_word.ts";
import { TRUST_BUNDLE, TRUST_BUNDLE_KEY } from "./signing_names.ts";

const log = logger("identity");

export interface BundleOptions {
  readonly api: ApiClient;
  /** Where the ConfigMap is. */
  readonly namespace: string;
  /** Called with the roots, DER, when they have changed, and the first time. */
  readonly onTrustBundle?: (roots: Uint8Array[]) => void;
}

/**
 * The roots in a bundle's PEM, DER, every one of them a whole certificate.
 *
 * @throws {TypeError | OpenSslError} when one is not.
 */
export function readRoots(pem: string): Uint8Array<ArrayBuffer>[] {
  const roots = decodePem(pem, "CERTIFICATE");
  for (const [index, der] of roots.entries()) {
    try {
      Certificate.parse(der)[Symbol.dispose]();
    } catch (cause) {
      throw new TypeError(`its certificate ${index + 1} cannot be read`, { cause });
    }
  }
  return roots;
}

/** The trust bundle, followed live: its roots as the ConfigMap has them now. */
export class FollowedBundle {
  readonly #changedTo: BundleOptions["onTrustBundle"];
  /** What problems are about. */
  readonly #where: string;
  readonly #watch: WatchedList;
  /** Why the ConfigMap is not in use as it is now; undefined when it is. */
  damage: string | undefined;
  /** The signer's last word, as the ConfigMap has it. */
  #word: string | undefined;
  /** Since when it stands there, and could have been another. */
  #wordSince = performance.now();
  #pem = "";
  #roots: Uint8Array<ArrayBuffer>[] = [];
  #changed = Promise.withResolvers<void>();

  constructor(options: BundleOptions) {
    this.#changedTo = options.onTrustBundle;
    this.#where = `ConfigMap ${options.namespace}/${TRUST_BUNDLE}`;
    this.#watch = watchList(options.api, {
      name: "trust bundle",
      path: `/api/v1/namespaces/${options.namespace}/configmaps`,
      query: { fieldSelector: `metadata.name=${TRUST_BUNDLE}` },
      read: (value) => {
        const { metadata, data } = v.parse(BundleSchema, value);
        const word = metadata.annotations?.[WORD_ANNOTATION];
        return { pem: data?.[TRUST_BUNDLE_KEY] ?? "", word };
      },
      onChange: (bundles) => {
        const [bundle] = bundles.values();
        if (this.#word !== bundle?.word) this.#wordSince = performance.now();
        this.#word = bundle?.word;
        this.#set(bundle?.pem);
      },
    });
  }

  /**
   * Why trust may not last: what is wrong with the bundle, or with the signer; undefined when
   * nothing is.
   */
  problem(): string | undefined {
    return this.damage ?? this.#unread() ?? this.#signerProblem();
  }

  /** While nothing is heard of the bundle, the signer cannot be heard either. */
  #signerProblem(): string | undefined {
    if (this.#watch.unheard() !== undefined) this.#wordSince = performance.now();
    return signerProblem(this.#word, performance.now() - this.#wordSince);
  }

  /** Without new roots, what a new CA signs is refused. */
  #unread(): string | undefined {
    const unheard = this.#watch.unheard();
    if (unheard === undefined) return undefined;
    const age = performance.now() - unheard.since;
    if (age < UNREAD_MILLISECONDS) return undefined;
    const since = new Date(Date.now() - age).toISOString();
    return `${this.#where} has not been read since ${since}: ${unheard.why}`;
  }

  /** @throws {IssuingError} `unknown_root` when there are none in time. */
  async roots(signal: AbortSignal): Promise<Uint8Array[]> {
    while (this.#roots.length === 0) {
      if (signal.aborted) {
        throw new IssuingError("unknown_root", `${this.#where} holds no roots`);
      }
      await this.#next(signal);
    }
    return [...this.#roots];
  }

  /**
   * retried returns what `use` makes of the roots. While it finds none that fits (`unknown_root`),
   * the next change of the bundle is waited for.
   */
  async retried<T>(use: (roots: readonly Uint8Array[]) => T, signal: AbortSignal): Promise<T> {
    for (;;) {
      try {
        return use(this.#roots);
      } catch (error) {
        const early = error instanceof IssuingError && error.reason === "unknown_root";
        if (!early || signal.aborted) throw error;
      }
      await this.#next(signal);
    }
  }

  close(): Promise<void> {
    return this.#watch.close();
  }

  /**
   * A bundle that is gone, empty or damaged never replaces a good one: all pods would be cut off.
   */
  #set(pem: string | undefined): void {
    if (pem === undefined) return this.#damaged(MISSING);
    if (pem !== "" && pem === this.#pem && this.damage === undefined) return;
    let roots: Uint8Array<ArrayBuffer>[];
    try {
      roots = readRoots(pem);
      if (roots.length === 0) throw new TypeError("it holds no certificate");
    } catch (error) {
      return this.#damaged(`is damaged (${errorText(error)})`);
    }
    this.damage = undefined;
    if (pem === this.#pem) return;
    this.#pem = pem;
    this.#roots = roots;
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
    this.#changedTo?.([...roots]);
  }

  #damaged(how: string): void {
    const then = this.#pem === "" ? "there is no good one yet" : "the last good one stays in use";
    const damage = `${this.#where} ${how}: ${then}`;
    if (damage === this.damage) return;
    this.damage = damage;
    // That there is none yet is so at each first start.
    if (this.#pem === "") log.info("{problem}", { problem: damage });
    else log.error("{problem}", { problem: damage });
  }

  /** Resolves at the next change, or when the signal says so. */
  async #next(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const stopped = Promise.withResolvers<void>();
    const stop = () => stopped.resolve();
    signal.addEventListener("abort", stop, { once: true });
    await Promise.race([this.#changed.promise, stopped.promise]);
    signal.removeEventListener("abort", stop);
  }
}

const MISSING = "is missing (the signer makes it: look at the pods of the Deployment " +
  "kube-gateway-signer)";

/** A server that is away is a problem of its own by then. */
const UNREAD_MILLISECONDS = 120_000;

const BundleSchema = v.object({
  metadata: v.object({ annotations: v.nullish(v.record(v.string(), v.string())) }),
  data: v.nullish(v.record(v.string(), v.string())),
});
