import { IssuingError } from "../identity/issuer.ts";
import { NoAnswer } from "../kubernetes/errors.ts";
import { logger } from "../log.ts";
import {
  type BundleRoot,
  DamagedBundle,
  fingerprint,
  isPropagated,
  nextBundle,
  recordOf,
} from "./bundle.ts";
import type { BundleStore } from "./bundle_store.ts";
import { type ClusterCa, expiryOf, requireCurrent } from "./ca.ts";

const log = logger("signer");

export interface RotationSettings {
  /** How long a new root is in the bundle before it signs. */
  readonly propagationMilliseconds: number;
  /** The longest lifetime of a certificate. */
  readonly ttlSeconds: number;
}

/**
 * Rotation says which CA signs: the Secret's once all pods may know its root, and until then the
 * one before it.
 */
export class Rotation {
  readonly #store: BundleStore;
  readonly #settings: RotationSettings;
  /** Those that were in the Secret, oldest first; the last is in it now. */
  #known: ClusterCa[] = [];
  #bundle: readonly BundleRoot[] | undefined;
  /** What was in the ConfigMap when it could be read last. */
  #lastGood: readonly BundleRoot[] | undefined;
  /** Why the ConfigMap cannot be read as a bundle, if it cannot. */
  damage: string | undefined;
  /** When the last of those that wait for their turn is done. */
  #turn: Promise<void> = Promise.resolve();

  constructor(store: BundleStore, settings: RotationSettings) {
    this.#store = store;
    this.#settings = settings;
  }

  /**
   * The Secret's CA. Has no effect on the bundle before the next {@link review} or {@link
   * authority}.
   */
  offer(ca: ClusterCa): void {
    const last = this.#known.at(-1);
    if (last !== undefined && sameCa(last, ca)) return;
    this.#known = [...this.#known.slice(-3), ca];
    this.#bundle = undefined;
  }

  /** Why the Secret's CA signs no more, or soon will not; undefined when it does for long. */
  expiry(now: Date): string | undefined {
    const ca = this.#known.at(-1);
    return ca === undefined ? undefined : expiryOf(ca.certificate, now);
  }

  /**
   * review reads the bundle anew and brings it up to date: the Secret's root comes in, roots that
   * nothing needs go out. The leader calls it when it begins to lead, and then now and again.
   *
   * @throws {ApiError | NoAnswer | TypeError} when the ConfigMap cannot be read or written in time.
   */
  async review(timeoutMs: number): Promise<void> {
    await this.#inTurn(timeoutMs, (left) => this.#update(new Map(), left));
  }

  /**
   * The CA to sign a certificate with that lives for `ttlSeconds` from now. Before it is given out,
   * the bundle has promised to keep its root for so long.
   *
   * @param unfit those that have been tried, whose certificate peers would refuse.
   * @throws {IssuingError} `ca_unusable` while no CA may sign.
   * @throws {ApiError | NoAnswer | TypeError} as {@link review}.
   */
  async authority(
    timeoutMs: number,
    unfit: ReadonlySet<ClusterCa> = new Set(),
  ): Promise<ClusterCa> {
    return await this.#inTurn(timeoutMs, async (left) => {
      const ca = this.#signing(this.#bundle ?? await this.#update(new Map(), left), unfit);
      const needed = Date.now() + this.#settings.ttlSeconds * 1000 + SIGNING_MILLISECONDS;
      if (await this.#promise(ca, needed, left)) return ca;
      throw new IssuingError(
        "ca_unusable",
        "Cannot sign: somebody has taken the root from the bundle",
      );
    });
  }

  /**
   * inTurn runs one piece of work after the other: a burst of requests wants the same write, and
   * all but the first find it done.
   */
  async #inTurn<T>(timeoutMs: number, work: (leftMs: number) => Promise<T>): Promise<T> {
    const deadline = performance.now() + timeoutMs;
    const earlier = this.#turn;
    const done = Promise.withResolvers<void>();
    this.#turn = done.promise;
    try {
      await earlier;
      const left = deadline - performance.now();
      if (left <= 0) throw new NoAnswer(`the trust bundle was busy for ${timeoutMs / 1000} s`);
      return await work(left);
    } finally {
      done.resolve();
    }
  }

  /** The newest CA whose root all pods may be expected to know. */
  #signing(bundle: readonly BundleRoot[], unfit: ReadonlySet<ClusterCa>): ClusterCa {
    const now = new Date();
    const ca = this.#known.findLast((one) =>
      !unfit.has(one) && one.certificate.notAfter > now &&
      isPropagated(bundle, one.root, now, this.#settings.propagationMilliseconds)
    );
    if (ca === undefined) {
      throw new IssuingError(
        "ca_unusable",
        "Cannot sign yet: the CA's root is not yet known to all",
      );
    }
    requireCurrent(ca.certificate);
    return ca;
  }

  async #promise(ca: ClusterCa, needed: number, timeoutMs: number): Promise<boolean> {
    // Nobody can take a root out of a bundle that is damaged, and nobody can write into it.
    const promised = (roots: readonly BundleRoot[]) =>
      (recordOf(roots, ca.root)?.neededUntil?.getTime() ?? 0) >= needed ||
      this.damage !== undefined;
    if (this.#bundle !== undefined && promised(this.#bundle)) return true;
    // A tenth more than needed, so that this is one write in a tenth of the lifetime.
    const until = new Date(needed + this.#settings.ttlSeconds * 100);
    return promised(await this.#update(new Map([[fingerprint(ca.root), until]]), timeoutMs));
  }

  async #update(
    issuedUntil: ReadonlyMap<string, Date>,
    timeoutMs: number,
  ): Promise<readonly BundleRoot[]> {
    const root = this.#known.at(-1)?.root;
    if (root === undefined) {
      throw new IssuingError("ca_unusable", "Cannot sign yet: the CA has not been read");
    }
    const before = this.#bundle;
    this.#bundle = undefined;
    try {
      this.#bundle = await this.#store.update(
        (current) => nextBundle(current, { root, now: new Date(), issuedUntil }),
        timeoutMs,
      );
      this.#lastGood = this.#bundle;
      this.damage = undefined;
    } catch (error) {
      if (!(error instanceof DamagedBundle) || this.#lastGood === undefined) throw error;
      this.damage = error.message;
      log.error("{problem}; signing goes on with the last good one", { problem: error.message });
      return this.#bundle = this.#lastGood;
    }
    const ids = this.#bundle.map(({ der }) => fingerprint(der).slice(0, 16)).join(" ");
    if (before?.map(({ der }) => fingerprint(der).slice(0, 16)).join(" ") !== ids) {
      log.info("the trust bundle holds {roots}", { roots: ids });
    }
    return this.#bundle;
  }
}

function sameCa(a: ClusterCa, b: ClusterCa): boolean {
  return fingerprint(a.root) === fingerprint(b.root) &&
    fingerprint(new Uint8Array(a.certificate.rawData)) ===
      fingerprint(new Uint8Array(b.certificate.rawData));
}

/** From choosing a CA to the certificate: the request is approved in between. */
const SIGNING_MILLISECONDS = 5_000;
