/**
 * Why a peer's identity is refused: reason code → what it means. The codes are metric labels and
 * log fields, so they never change their meaning and never carry a peer's own text.
 */
export const IDENTITY_REASONS = {
  no_basic_constraints: "the certificate has no basicConstraints extension",
  ca_as_leaf: "the certificate is a certificate authority's",
  no_key_usage: "the certificate has no keyUsage extension",
  key_usage_not_critical: "the keyUsage extension is not critical",
  no_digital_signature: "the keyUsage does not allow digital signatures",
  signs_certificates: "the keyUsage allows signing certificates",
  signs_crls: "the keyUsage allows signing revocation lists",
  extended_key_usage: "the extended key usage does not name both server and client authentication",
  no_uri_san: "the certificate has no URI SAN",
  two_uri_sans: "the certificate has more than one URI SAN",
  san_not_critical: "the subject is empty and the SAN extension is not critical",
  bad_ip_san: "an IP SAN is neither a plain IPv4 nor a plain IPv6 address",
  too_many_ip_sans: "the certificate has too many IP SANs",
  id_too_long: "the SPIFFE ID is longer than 2048 bytes",
  id_bad_byte: "the SPIFFE ID has a byte that is not allowed",
  id_scheme: "the SPIFFE ID does not begin with spiffe://",
  id_trust_domain: "the SPIFFE ID is of another trust domain",
  id_path: "the SPIFFE ID's path is not /ns/<namespace>/sa/<service account>",
  id_namespace: "the SPIFFE ID's namespace is no Kubernetes namespace name",
  id_service_account: "the SPIFFE ID's service account is no Kubernetes name",
  identity_mismatch: "the certificate is valid, but another identity's than the registry names",
  address_mismatch: "the certificate is valid, but the address is none of its IP SANs",
  denied: "the certificate is valid, but the cluster's deny list names its holder",
} as const;

/** A reason code of `IDENTITY_REASONS`. */
export type IdentityReason = keyof typeof IDENTITY_REASONS;

/**
 * A peer's identity was refused. `reason` is the stable code; the message is a sentence for people.
 */
export class IdentityError extends Error {
  override readonly name = "IdentityError";
  readonly reason: IdentityReason;

  /** `detail` must be bounded and printable: it is what the peer sent, put through `quoted`. */
  constructor(reason: IdentityReason, detail?: string) {
    super(IDENTITY_REASONS[reason] + (detail === undefined ? "" : `: ${detail}`));
    this.reason = reason;
  }
}
