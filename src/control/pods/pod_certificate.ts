import { jittered } from "../../waiting.ts";
import { errorText } from "../../error_text.ts";
import { newKeyAndRequest } from "../../identity/csr.ts";
import { type Issuer, IssuingError, type PodIdentity } from "../../identity/issuer.ts";
import { logger } from "../../log.ts";
import { chainFlaw } from "../../native/verify_chain.ts";

const log = logger("enrolment");

/** How long connections may wait for the pod's certificate before they are refused again. */
const HOLD_MILLISECONDS = 5_000;

/**
 * A failed renewal is tried again after this, doubled up to the maximum or a tenth of what is left.
 */
const RETRY_MILLISECONDS = { first: 1_000, most: 300_000 };

/** A pod without a certificate is held: the signer is asked at least this often. */
const MOST_PATIENT_MILLISECONDS = 60_000;

/** The same for one whose certificate nobody takes. */
const FLAWED_RETRY_MILLISECONDS = 10_000;

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

/**
 * One pod's key and certificate: obtained, renewed at half of its life, and followed by the trust
 * bundle. When that is, the wall clock says, as it does for whoever verifies the certificate:
 * {@link PodCertificate.look} is called every second, so a clock that jumps (a suspended machine,
 * the first answer of a time server) is noticed at once.
 */
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
  /** Whether the roots that it is shown with vouch for it: peers have the same. */
  #isTrusted = true;
  #show: ((credentials: PodCredentials) => void) | undefined;
  /** When it is to be renewed, in milliseconds since 1970. */
  #renewAt = Infinity;
  #renewing = false;
  /** Why the last renewal has failed, if it has, and whether whoever issues was only away. */
  #failure: { readonly reason: string; readonly isAway: boolean } | undefined;
  /** After a renewal that has failed: when the next one may begin, by the monotonic clock. */
  #retry = { at: -Infinity, after: RETRY_MILLISECONDS.first };

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

  /** Why nobody would take the certificate now; undefined when everybody does. */
  get flaw(): string | undefined {
    if (this.#current === undefined) return undefined;
    if (!this.#isTrusted) return "its certificate's CA has left the trust bundle";
    return flawOf(this.#current.certificate, Date.now());
  }

  /**
   * Why it will end without another, as far as can be seen: its renewal was refused, or who issues
   * has been away until only a quarter of its life is left. Undefined when it is fresh, or the next
   * attempt may well succeed.
   */
  get renewalProblem(): string | undefined {
    if (this.#failure === undefined || this.#current === undefined) return undefined;
    if (!this.#isDue) return undefined; // the clock was wrong when it was tried
    const { notBefore, notAfter } = this.#current.certificate;
    const [from, to] = [notBefore.getTime(), notAfter.getTime()];
    if (this.#failure.isAway && to - Date.now() > (to - from) / 4) return undefined;
    return `its certificate, which ends at ${notAfter.toISOString()}, cannot be renewed: ${this.#failure.reason}`;
  }

  /**
   * The first certificate, waited for no longer than connections may be held.
   *
   * @throws {IssuingError}, or {Error} when it takes too long: it is still on its way then.
   */
  async first(): Promise<PodCredentials> {
    if (this.#current !== undefined && this.flaw === undefined) return this.#current;
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
    const late = () => {
      const problem = this.#issuer.trustProblem?.();
      return `its certificate has not been issued yet${
        problem === undefined ? "" : `: ${problem}`
      }`;
    };
    try {
      const credentials = await Promise.race([issuing, tooLong(late, timeout.signal)]);
      this.#first = undefined;
      return this.#use(credentials);
    } finally {
      timeout.abort();
    }
  }

  /**
   * From now on it is kept fresh; `show` is called with what is to be used from the next handshake
   * on.
   */
  keepFresh(show: (credentials: PodCredentials) => void): void {
    this.#show = show;
  }

  /** It is not in use any more, but may be again. */
  rest(): void {
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
    this.#isTrusted = isTrusted(this.#current);
    this.#show?.(this.#current);
  }

  /** Begins to renew it, if it is time by the wall clock. */
  look(): void {
    if (!this.#isDue || this.#show === undefined || this.#renewing) return;
    if (performance.now() < this.#retry.at) return;
    this.#renewing = true;
    void this.#renew().finally(() => this.#renewing = false);
  }

  get #isDue(): boolean {
    return Date.now() >= this.#renewAt || this.flaw !== undefined;
  }

  async #obtain(): Promise<PodCredentials> {
    const request = await newKeyAndRequest();
    const certificate = await this.#issuer.issue(this.#pod, request, this.#ended.signal);
    const roots = await this.#issuer.trustBundle();
    return { chain: certificate.chain, privateKey: request.privateKey, roots, certificate };
  }

  async #renew(): Promise<void> {
    const pod = `${this.#pod.namespace}/${this.#pod.name}`;
    try {
      const credentials = await this.#obtain();
      this.#use(credentials);
      this.#show?.(credentials); // unless the pod has left meanwhile
      log.info("renewed the certificate of {pod}", { pod });
    } catch (error) {
      if (this.#ended.signal.aborted) return;
      log.error("renewing the certificate of {pod} failed: {reason}", {
        pod,
        reason: errorText(error),
      });
      this.#failure = {
        reason: errorText(error),
        isAway: error instanceof IssuingError && error.reason === "unavailable",
      };
      const left = (this.status?.notAfter.getTime() ?? 0) - Date.now();
      const longest = this.flaw === undefined ? RETRY_MILLISECONDS.most : FLAWED_RETRY_MILLISECONDS;
      const most = Math.max(RETRY_MILLISECONDS.first, Math.min(left / 10, longest));
      const { after } = this.#retry;
      this.#retry = { at: performance.now() + jittered(after), after: Math.min(2 * after, most) };
    }
  }

  #use(credentials: PodCredentials): PodCredentials {
    this.#current = credentials;
    this.#isTrusted = isTrusted(credentials);
    this.#failure = undefined;
    this.#renewAt = renewalOf(credentials.certificate, Date.now());
    this.#retry = { at: -Infinity, after: RETRY_MILLISECONDS.first };
    return credentials;
  }
}

/** Why a certificate is no good at `now`, in milliseconds since 1970. */
export function flawOf(
  { notBefore, notAfter }: Pick<CertificateStatus, "notBefore" | "notAfter">,
  now: number,
): string | undefined {
  const clock = new Date(now).toISOString();
  if (now >= notAfter.getTime()) {
    return `its certificate has ended at ${notAfter.toISOString()}, and it is ${clock} here`;
  }
  if (now < notBefore.getTime()) {
    return `its certificate begins at ${notBefore.toISOString()}, and it is ${clock} here: is the clock right?`;
  }
  return undefined;
}

/**
 * Half of the certificate's life from now, give or take a tenth, so that a node's pods do not renew
 * at once.
 */
function renewalOf({ notAfter }: CertificateStatus, now: number): number {
  return now + jittered((notAfter.getTime() - now) / 2);
}

/**
 * Whether a certificate leads to one of the roots; what else may be wrong with it, others find out.
 */
function isTrusted({ chain, roots }: PodCredentials): boolean {
  return chain.length === 0 || roots.length === 0 ||
    !(chainFlaw(chain, roots)?.isRootMissing ?? false);
}

function tooLong(message: () => string, signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const timer = setTimeout(() => reject(new Error(message())), HOLD_MILLISECONDS);
    signal.addEventListener("abort", () => clearTimeout(timer));
  });
}
