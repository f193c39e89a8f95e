import type { LeafFacts } from "../leaf_facts.ts";
import { addressFamily, formatAddress } from "../addresses.ts";
import { quoted } from "../names.ts";
import { decodePodUid } from "./pod_uid.ts";
import { IdentityError } from "./reasons.ts";
import { parseSpiffeId, type SpiffeIdentity } from "./spiffe.ts";

/** Who a peer has proved to be. */
export interface PeerIdentity extends SpiffeIdentity {
  /** The IP SANs in canonical text, without duplicates. */
  readonly addresses: readonly string[];
  /** Undefined when the certificate does not say. */
  readonly podUid: string | undefined;
}

/**
 * identityOfLeaf decides whether a leaf certificate is a pod's X.509-SVID of our trust domain, and
 * whose. It judges the leaf itself; OpenSSL has verified chain, signature and time before.
 *
 * Rules: SPIFFE X509-SVID 2 (one URI SAN), 4.1 to 4.4 (constraints and usages) and 5.2 (leaf
 * validation), RFC 5280 4.2.1.6 (critical SAN when the subject is empty). Stricter in two points,
 * since our issuers always write them: basicConstraints must be present, and IP SANs must be well
 * formed.
 *
 * @throws {IdentityError} with the first rule that does not hold.
 */
export function identityOfLeaf(facts: LeafFacts, trustDomain: string): PeerIdentity {
  requireLeaf(facts);
  requireUsages(facts);
  const [uri, ...others] = facts.uriSans;
  if (uri === undefined) throw new IdentityError("no_uri_san");
  if (others.length > 0) throw new IdentityError("two_uri_sans", `${others.length + 1} of them`);
  if (facts.subjectEmpty && !facts.sanCritical) throw new IdentityError("san_not_critical");
  const { directoryAttributes } = facts;
  const podUid = directoryAttributes === undefined ? undefined : decodePodUid(directoryAttributes);
  return { ...parseSpiffeId(uri, trustDomain), addresses: addressesOf(facts.ipSans), podUid };
}

/**
 * The outbound side's rule: the server must be the pod that the registry names for the address that
 * the application asked for (`address`, canonical text). The address only chooses what to expect.
 *
 * @throws {IdentityError} `identity_mismatch` or `address_mismatch`.
 */
export function requireServer(
  identity: PeerIdentity,
  expected: { address: string; id: string },
): void {
  requireId(identity, expected.id);
  requireAddress(identity, expected.address);
}

/**
 * The inbound side's rule: the client address in OPEN (canonical text) must be one of the client
 * certificate's IP SANs, so that no client can claim another pod's address; and when our registry
 * names an identity for that address, it must be the same. `registered` is undefined while the
 * registry does not know the address: the certificate alone proves it then.
 *
 * @throws {IdentityError} `address_mismatch` or `identity_mismatch`.
 */
export function requireClient(
  identity: PeerIdentity,
  clientAddress: string,
  registered: string | undefined,
): void {
  requireAddress(identity, clientAddress);
  if (registered !== undefined) requireId(identity, registered);
}

function requireLeaf(facts: LeafFacts): void {
  if (!facts.hasBasicConstraints) throw new IdentityError("no_basic_constraints");
  if (facts.isCa) throw new IdentityError("ca_as_leaf");
}

function requireUsages(facts: LeafFacts): void {
  const { keyUsage, extendedKeyUsage } = facts;
  if (keyUsage === undefined) throw new IdentityError("no_key_usage");
  if (!facts.keyUsageCritical) throw new IdentityError("key_usage_not_critical");
  if ((keyUsage & KU_DIGITAL_SIGNATURE) === 0) throw new IdentityError("no_digital_signature");
  if ((keyUsage & KU_KEY_CERT_SIGN) !== 0) throw new IdentityError("signs_certificates");
  if ((keyUsage & KU_CRL_SIGN) !== 0) throw new IdentityError("signs_crls");
  const both = XKU_SSL_SERVER | XKU_SSL_CLIENT;
  if (extendedKeyUsage !== undefined && (extendedKeyUsage & both) !== both) {
    throw new IdentityError("extended_key_usage");
  }
}

function addressesOf(ipSans: Uint8Array[]): string[] {
  if (ipSans.length > MAX_IP_SANS) {
    throw new IdentityError("too_many_ip_sans", `${ipSans.length} of them`);
  }
  const addresses = new Set<string>();
  for (const bytes of ipSans) {
    // RFC 5280 4.2.1.6 has 4 bytes for IPv4: a mapped address in 16 is a second spelling of the
    // same.
    if (bytes.length !== 4 && (bytes.length !== 16 || addressFamily(bytes) === 4)) {
      throw new IdentityError("bad_ip_san", `${bytes.length} bytes`);
    }
    addresses.add(formatAddress(bytes));
  }
  return [...addresses];
}

function requireId(identity: PeerIdentity, expected: string): void {
  if (identity.id === expected) return;
  throw new IdentityError(
    "identity_mismatch",
    `${quoted(identity.id, 256)}, not ${quoted(expected, 256)}`,
  );
}

function requireAddress(identity: PeerIdentity, address: string): void {
  if (identity.addresses.includes(address)) return;
  throw new IdentityError(
    "address_mismatch",
    `${quoted(address)} is not among ${identity.addresses.join(", ") || "none"}`,
  );
}

/** openssl/x509v3.h (3.0): bits of `X509_get_key_usage`. */
const KU_DIGITAL_SIGNATURE = 0x80;
const KU_KEY_CERT_SIGN = 0x04;
const KU_CRL_SIGN = 0x02;

/** openssl/x509v3.h (3.0): bits of `X509_get_extended_key_usage`. */
const XKU_SSL_SERVER = 0x1;
const XKU_SSL_CLIENT = 0x2;

/** A pod has at most one address of each family; the rest is room for other issuers. */
const MAX_IP_SANS = 8;
