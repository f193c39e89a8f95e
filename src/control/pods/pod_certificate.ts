import { newKeyAndRequest } from "../../identity/csr.ts";
import { type Issuer, IssuingError, type PodIdentity } from "../../identity/issuer.ts";
import { logger } from "../../log.ts";

const log = logger("enrolment");

/** How long connections may wait for the pod's certificate before they are refused again. */
const HOLD_MILLISECONDS = 5_000;

/** A failed renewal is tried again after this, doubled up to the maximum or a tenth of what is left. */
const RETRY_MILLISECONDS = { first: 1_000, most: 300_000 };

/** A pod without a certificate is held: the signer is asked at least this often. */
const MOST_PATIENT_MILLISECONDS = 60_000;

/** What the workers need, and the certificate's dates. */
export interface PodCredentials {
  readonly chain: Uint8Array[];
  readonly privateKey: Uint8Array;
  readonly roots: Uint8Array[];
  readonly certificate: CertificateStatus;
}

export interface CertificateStatus {
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** One pod's key and certificate: obtained, renewed at half of its life, and followed by the trust bundle. */
export class PodCertificate {
  readonly #issuer: Issuer;
  readonly #pod: PodIdentity;
  readonly #ended = new AbortController();
  /** Asked for once, also when waiting for it is given up and begun again. */
  #first: Promise<PodCredentials> | undefined;
  /** A signer that has refused is not asked again before this. */
  #again = { at: -Infinity, after: RETRY_MILLISECONDS.first };
  /** What is in use, and how to tell who uses it. */
  #current: PodCredentials | undefined;
  #show: ((credentials: PodCredentials) => void) | undefined;
  #renewal: ReturnType<typeof setTimeout> | undefined;

  constructor(issuer: Issuer, pod: PodIdentity) {
    this.#issuer = issuer;
    this.#pod = pod;
  }

  get status(): CertificateStatus | undefined {
    return this.#current?.certificate;
  }

  /** Whether it would be too early to ask again for what was refused. */
  get isRefused(): boolean {
    return performance.now() < this.#again.at;
  }

  /**
   * The first certificate, waited for no longer than connections may be held.
   *
   * @throws {IssuingError}, or {Error} when it takes too long: it is still on its way then.
   */
  async first(): Promise<PodCredentials> {
    if (this.#current !== undefined) return this.#current;
    const issuing = this.#first ??= this.#obtain();
    issuing.catch((error) => {
      if (this.#first !== issuing) return;
      this.#first = undefined;
      // Who is only away has not refused: asked for as soon as it is back.
      const isAway = error instanceof IssuingError && error.reason === "unavailable";
      const after = isAway ? RETRY_MILLISECONDS.first : this.#again.after;
      this.#again = {
        at: performance.now() + jittered(after),
        after: Math.min(2 * after, MOST_PATIENT_MILLISECONDS),
      };
    });
    const timeout = new AbortController();
    try {
      return this.#current = await Promise.race([issuing, tooLong(timeout.signal)]);
    } finally {
      timeout.abort();
    }
  }

  /** From now on it is kept fresh; `show` is called with what is to be used from the next handshake on. */
  keepFresh(show: (credentials: PodCredentials) => void): void {
    this.#show = show;
    if (this.#current !== undefined) this.#renewAt(halfLife(this.#current.certificate));
  }

  /** It is not in use any more, but may be again. */
  rest(): void {
    clearTimeout(this.#renewal);
    this.#show = undefined;
  }

  /** For good: nothing that is still under way comes to anything. */
  end(): void {
    this.rest();
    this.#ended.abort();
  }

  /** From the next handshake on these are the roots that peers are verified by. */
  trust(roots: Uint8Array[]): void {
    if (this.#current === undefined) return;
    this.#current = { ...this.#current, roots };
    this.#show?.(this.#current);
  }

  async #obtain(): Promise<PodCredentials> {
    const { privateKey, csr } = await newKeyAndRequest();
    const certificate = await this.#issuer.issue(this.#pod, csr, this.#ended.signal);
    const roots = await this.#issuer.trustBundle();
    return { chain: certificate.chain, privateKey, roots, certificate };
  }

  #renewAt(milliseconds: number, retry = RETRY_MILLISECONDS.first): void {
    clearTimeout(this.#renewal);
    this.#renewal = setTimeout(() => this.#renew(retry), milliseconds);
  }

  async #renew(retry: number): Promise<void> {
    const pod = `${this.#pod.namespace}/${this.#pod.name}`;
    try {
      const credentials = await this.#obtain();
      if (this.#show === undefined) return; // the pod has left meanwhile
      this.#current = credentials;
      this.#show(credentials);
      this.#renewAt(halfLife(credentials.certificate));
      log.info("renewed the certificate of {pod}", { pod });
    } catch (error) {
      if (this.#show === undefined) return;
      log.error("renewing the certificate of {pod} failed: {reason}", {
        pod,
        reason: String(error),
      });
      const left = (this.status?.notAfter.getTime() ?? 0) - Date.now();
      const most = Math.max(RETRY_MILLISECONDS.first, Math.min(left / 10, RETRY_MILLISECONDS.most));
      this.#renewAt(jittered(retry), Math.min(2 * retry, most));
    }
  }
}

function tooLong(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const late = () => reject(new Error("its certificate has not been issued yet"));
    const timer = setTimeout(late, HOLD_MILLISECONDS);
    signal.addEventListener("abort", () => clearTimeout(timer));
  });
}

/** Half of the certificate's life from now, give or take a tenth, so that a node's pods do not renew at once. */
function halfLife({ notAfter }: CertificateStatus): number {
  // setTimeout takes 31 bits of milliseconds: 24 days. Renewing earlier than needed does no harm.
  return Math.min(jittered((notAfter.getTime() - Date.now()) / 2), 2 ** 31 - 1);
}

function jittered(milliseconds: number): number {
  return milliseconds * (0.9 + 0.2 * Math.random());
}
