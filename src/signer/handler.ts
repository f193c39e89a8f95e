import type * as X509 from "@peculiar/x509";
import { type Pod, readPod } from "../cluster/objects.ts";
import type { DenyList } from "../cluster/deny_list.ts";
import { errorText } from "../error_text.ts";
import {
  type IssuedCertificate,
  IssuingError,
  type IssuingReason,
  type PodIdentity,
} from "../identity/issuer.ts";
import { provenKey, signLeaf } from "../identity/leaf.ts";
import { encodePem } from "../identity/pem.ts";
import { NODE_CLAIM, REQUESTS_PATH } from "../identity/signing_names.ts";
import { spiffeId } from "../identity/spiffe.ts";
import { verifyIssued } from "../identity/verify_issued.ts";
import type { ApiRequests } from "../kubernetes/api.ts";
import { ApiError } from "../kubernetes/errors.ts";
import { logger } from "../log.ts";
import { quoted } from "../names.ts";
import {
  type Allowed,
  authorise,
  type AuthoriseSettings,
  type Claim,
  claimOf,
  type Denial,
  deny,
} from "./authorise.ts";
import type { AddressBook } from "./address_book.ts";
import type { ClusterCa } from "./ca.ts";
import { type CsrFacts, readCsr } from "./facts.ts";
import type { Candidacy } from "./lease.ts";
import type { Outcome } from "./queue.ts";
import {
  orUndefined,
  patchRequest,
  type RequestChange,
  type RequestVersion,
} from "./request_object.ts";
import type { Rotation } from "./rotation.ts";

const audit = logger("signer");

export interface HandlerOptions {
  readonly x509: typeof X509;
  readonly api: ApiRequests;
  /**
   * The request as a watch has seen it last, which saves asking for it; its version guards the
   * writes.
   */
  readonly seen?: (name: string) => CsrFacts | undefined;
  readonly settings: AuthoriseSettings;
  readonly addressBook: Pick<AddressBook, "isComplete" | "around">;
  /** Undefined until it has been read. */
  readonly denied: () => DenyList | undefined;
  readonly trustDomain: string;
  readonly rotation: Rotation;
  /** Nothing is written without it. */
  readonly candidacy: Pick<Candidacy, "remaining">;
  /** How long a request may wait that is denied in the end. */
  readonly patienceMilliseconds?: number;
}

/**
 * A RequestHandler takes each request to its end: it looks up the pod, authorises, and then
 * approves and signs the request, or denies it.
 */
export class RequestHandler {
  readonly #options: HandlerOptions;
  /** When a request that waits was first seen; by its name. */
  readonly #waitingSince = new Map<string, number>();
  readonly #told = new WeakSet<ClusterCa>();

  constructor(options: HandlerOptions) {
    this.#options = options;
  }

  /** Never throws: what fails is logged and to be tried again. */
  async handle(name: string): Promise<Outcome> {
    try {
      if (this.#options.candidacy.remaining() === 0) return "done"; // the new leader's
      const outcome = await this.#decide(name);
      if (outcome === "done") this.#waitingSince.delete(name);
      return outcome;
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return this.forget(name);
      if (!(error instanceof ApiError && error.status === 409)) { // not merely changed meanwhile
        audit.warn("request {csr} is tried again: {error}", { csr: name, error: errorText(error) });
      }
      return "again";
    }
  }

  /** The request is gone. */
  forget(name: string): "done" {
    this.#waitingSince.delete(name);
    return "done";
  }

  async #decide(name: string): Promise<Outcome> {
    const { x509, settings, addressBook } = this.#options;
    const denied = this.#options.denied();
    if (!addressBook.isComplete || denied === undefined) return "again";
    const request = this.#options.seen?.(name) ??
      readCsr(await this.#get(`${REQUESTS_PATH}/${name}`));
    if (request.state !== "pending" && request.state !== "approved") return "done";
    const claim = claimOf(request, settings);
    if ("deny" in claim) return await this.#refuse(request, claim.deny, claim.message);
    // The proof is verified while the API server is asked for the pod. It counts only if the pod
    // may have a certificate.
    const proof = provenKey(x509, request.request);
    proof.catch(() => {});
    const pod = await this.#pod(claim);
    const verdict = authorise(request, pod, addressBook.around(claim), settings);
    if ("deny" in verdict) {
      return await this.#refuse(request, verdict.deny, verdict.message);
    }
    if ("wait" in verdict) {
      if (verdict.orDeny === undefined || this.#waited(name) < this.#patience) {
        this.#logWait(request, verdict.wait);
        return "again";
      }
      const { deny: code, message } = deny(verdict.orDeny, verdict.wait);
      return await this.#refuse(request, code, message);
    }

    const { namespace, serviceAccount, uid } = verdict.allow;
    const id = spiffeId(this.#options.trustDomain, namespace, serviceAccount);
    if (denied.pods.has(uid) || denied.identities.has(id)) {
      return await this.#refuse(request, "OnDenyList", deny("OnDenyList", id).message);
    }
    return await this.#issue(request, claim, verdict, proof);
  }

  /** Takes a request that may have its certificate to its end. */
  async #issue(
    request: CsrFacts,
    claim: Claim,
    { allow: pod, ttlSeconds }: Allowed,
    proof: Promise<CryptoKey>,
  ): Promise<"done"> {
    let publicKey: CryptoKey;
    try {
      publicKey = await proof;
    } catch (error) {
      const code = error instanceof IssuingError ? KEY_DENIALS[error.reason] : undefined;
      if (code === undefined) throw error;
      return await this.#refuse(request, code, deny(code).message);
    }
    let leaf: IssuedCertificate;
    try {
      leaf = await this.#sign(publicKey, pod, ttlSeconds);
    } catch (error) {
      if (!(error instanceof IssuingError) || error.reason !== "bad_certificate") throw error;
      audit.error("signing {csr} failed: {error}", { csr: request.name, error: error.message });
      return await this.#refuse(request, SIGNING_FAILED, error.message);
    }
    const approved = request.state === "approved" ? request : await this.#patch(request, {
      condition: { type: "Approved", reason: APPROVED, message: `for ${podName(claim)}` },
    });
    const pem = encodePem(leaf.chain, "CERTIFICATE");
    await this.#patch(approved, { certificate: pem });
    audit.info("issued {pod} a certificate", {
      ...auditFields(request, claim),
      serial: leaf.serial,
      notAfter: leaf.notAfter.toISOString(),
    });
    return "done";
  }

  /**
   * A certificate that peers accept: by the newest CA that may sign, or by the one before it when
   * that cannot vouch for this pod (it may be limited to other addresses).
   *
   * @throws {IssuingError} `bad_certificate`, saying what is wrong with the newest CA's;
   * `ca_unusable` as {@link Rotation.authority}.
   */
  async #sign(
    publicKey: CryptoKey,
    pod: PodIdentity,
    ttlSeconds: number,
  ): Promise<IssuedCertificate> {
    const { x509, rotation, trustDomain } = this.#options;
    const spki = new Uint8Array(await crypto.subtle.exportKey("spki", publicKey));
    const unfit = new Set<ClusterCa>();
    let flaw: IssuingError | undefined;
    for (;;) {
      let ca: ClusterCa;
      try {
        ca = await rotation.authority(this.#timeout(), unfit);
      } catch (error) {
        throw error instanceof IssuingError ? flaw ?? error : error;
      }
      const { chain } = await signLeaf(x509, ca, publicKey, pod, { trustDomain, ttlSeconds });
      try {
        const roots = [ca.root];
        const issued = chain.map((der) => new Uint8Array(der));
        return verifyIssued(issued, { pod, publicKey: spki, trustDomain, roots });
      } catch (error) {
        if (!(error instanceof IssuingError)) throw error;
        flaw ??= new IssuingError("bad_certificate", error.message);
        unfit.add(ca);
        this.#unfit(ca, flaw.message);
      }
    }
  }

  /** Told once for each CA: the rest is in the requests. */
  #unfit(ca: ClusterCa, reason: string): void {
    if (this.#told.has(ca)) return;
    this.#told.add(ca);
    audit.error("the CA {subject} does not fit every pod: {reason}", {
      subject: quoted(ca.certificate.subject),
      reason,
    });
  }

  /**
   * Ends a request without a certificate: Denied, or Failed when it was approved already (by hand,
   * or by an earlier leader).
   */
  async #refuse(
    request: CsrFacts,
    code: Denial | typeof SIGNING_FAILED,
    message: string,
  ): Promise<"done"> {
    const type = request.state === "approved" ? "Failed" : "Denied";
    await this.#patch(request, { condition: { type, reason: code, message } });
    audit.warn("denied {csr}: {message}", { ...auditFields(request, undefined), code, message });
    return "done";
  }

  async #pod({ namespace, name }: Claim): Promise<Pod | undefined> {
    const value = await orUndefined(this.#get(`/api/v1/namespaces/${namespace}/pods/${name}`));
    return value === undefined ? undefined : readPod(value);
  }

  #get(path: string): Promise<unknown> {
    return this.#options.api.request("GET", path, { timeoutMs: this.#timeout() });
  }

  #patch(request: RequestVersion, change: RequestChange): Promise<RequestVersion> {
    return patchRequest(this.#options.api, request, change, this.#timeout());
  }

  /** No request may end after the leadership; throws when that is over. */
  #timeout(): number {
    const remaining = this.#options.candidacy.remaining();
    if (remaining === 0) throw new Error("no longer the leader");
    return Math.min(REQUEST_MILLISECONDS, remaining);
  }

  get #patience(): number {
    return this.#options.patienceMilliseconds ?? PATIENCE_MILLISECONDS;
  }

  #waited(name: string): number {
    return performance.now() - (this.#waitingSince.get(name) ?? performance.now());
  }

  #logWait(request: CsrFacts, reason: string): void {
    const { name } = request;
    if (this.#waitingSince.has(name)) return;
    this.#waitingSince.set(name, performance.now());
    audit.info("request {csr} waits: {reason}", { csr: name, node: nodeOf(request), reason });
  }
}

/**
 * auditFields are who asked for what. The names have the form that Kubernetes gives names; other
 * text stands in `message`, quoted.
 */
function auditFields(request: CsrFacts, claim: Claim | undefined) {
  const { name, uid, username } = request;
  return {
    csr: name,
    csrUid: uid,
    requester: username.slice(0, 253),
    node: nodeOf(request),
    ...(claim === undefined
      ? {}
      : { pod: podName(claim), podUid: claim.uid, addresses: claim.addresses }),
  };
}

/**
 * From where it was asked, as the API server says: whoever floods the log with requests spends his
 * own node's share.
 */
function nodeOf({ extra }: CsrFacts): string | undefined {
  return extra[NODE_CLAIM]?.[0]?.slice(0, 253);
}

function podName({ namespace, name }: Claim): string {
  return `${namespace}/${name}`;
}

const KEY_DENIALS: Partial<Record<IssuingReason, Denial>> = {
  bad_request: "BadRequest",
  bad_key: "BadKey",
  bad_proof: "BadProof",
};

const APPROVED = "PodOnRequestersNode";
const SIGNING_FAILED = "SigningFailed";

/** Longer than any healthy API server needs. */
const REQUEST_MILLISECONDS = 5_000;

/** Within this time kubelet has usually written a new pod's address into its status. */
const PATIENCE_MILLISECONDS = 5_000;
