/** Who a certificate is for: what the API server says about the pod, never what a request says. */
export interface PodIdentity {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount: string;
  /** Canonical text, one or two, at most one of each family. */
  readonly addresses: readonly string[];
}

/** A pod's certificate. The private key is not here: it never left the agent's memory. */
export interface IssuedCertificate {
  /** DER, leaf first, without the root. */
  readonly chain: Uint8Array[];
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** Lower-case hexadecimal, as in the certificate. */
  readonly serial: string;
}

/** What its maker knows of a request: who parses it would learn no more. */
export interface CertificateRequest {
  /** PKCS#10 DER (RFC 2986), signed with ECDSA and SHA-256. */
  readonly csr: Uint8Array;
  /** The SubjectPublicKeyInfo that is in it, DER. */
  readonly publicKey: Uint8Array;
}

/** Whoever signs pods' certificates: the signer behind Kubernetes, or the in-process one. */
export interface Issuer {
  /**
   * A certificate for the pod and the key in the request. Only the public key is taken from the
   * request; identity, addresses, usages and lifetime are the issuer's.
   *
   * @throws {IssuingError} when it is denied, with the reason.
   */
  issue(
    pod: PodIdentity,
    request: CertificateRequest,
    signal?: AbortSignal,
  ): Promise<IssuedCertificate>;

  /** The roots that peers' certificates must lead to, DER. */
  trustBundle(): Promise<Uint8Array[]>;

  /**
   * Why the roots are not those that the cluster names now, or what is wrong with the signer.
   * Absent: neither can be.
   */
  trustProblem?(): string | undefined;
}

/**
 * Why a certificate is denied; a metric label and log field, so a code never changes its meaning.
 */
export type IssuingReason =
  | "bad_request" // no PKCS#10 request, or too large
  | "bad_key" // not ECDSA P-256
  | "bad_proof" // not signed by the key that it asks a certificate for
  | "bad_pod" // a name that Kubernetes does not allow, or an address no pod can have
  | "no_address" // the pod has no address yet
  | "ca_unusable" // the CA's directory, key or certificate must be repaired by a person
  | "denied" // by the signer; the message says why
  | "failed" // the signer approved it and could not sign
  | "unavailable" // the API server or the signer did not answer in time
  | "bad_certificate" // what was issued does not fit the pod or its key
  | "unknown_root"; // no root of the trust bundle leads to it, or there is no bundle yet

/** A certificate was denied. `reason` is the stable code; the message is a sentence for people. */
export class IssuingError extends Error {
  override readonly name = "IssuingError";
  readonly reason: IssuingReason;

  constructor(reason: IssuingReason, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}
