import { X509Certificate } from "node:crypto";
import { errorText } from "../error_text.ts";
import { quoted } from "../names.ts";
import { type IssuedCertificate, IssuingError, type PodIdentity } from "./issuer.ts";
import { spiffeId } from "./spiffe.ts";
import type { LeafFacts } from "../leaf_facts.ts";
import { identityOfLeaf } from "./verify.ts";

/** What an issued certificate must fit. */
export interface Expected {
  readonly pod: PodIdentity;
  /** The request's PKCS#10, DER, as csr.ts writes it. */
  readonly csr: Uint8Array;
  readonly trustDomain: string;
  /** DER. */
  readonly roots: readonly Uint8Array[];
  /** Reads a leaf's DER as peers do (native/certificate.ts). */
  readonly leafFacts: (der: Uint8Array<ArrayBuffer>) => LeafFacts;
}

/**
 * Judges what a signer has issued by what peers will ask of it, so that a pod never serves with a
 * certificate that they refuse: for our key, the pod's identity and addresses, valid now, and leading to a
 * root of the bundle.
 *
 * @throws {IssuingError} `bad_certificate`; `unknown_root` when only the root is missing (yet).
 */
export function verifyIssued(
  chain: readonly Uint8Array<ArrayBuffer>[],
  { pod, csr, trustDomain, roots, leafFacts }: Expected,
): IssuedCertificate {
  const [der] = chain;
  if (der === undefined || chain.length > MAX_CHAIN) {
    throw bad(`${chain.length} certificates were sent, 1 to ${MAX_CHAIN} are possible`);
  }
  try {
    const [leaf, ...intermediates] = chain.map((one) => new X509Certificate(one));
    if (leaf === undefined) throw bad("there is none");
    const key = leaf.publicKey.export({ type: "spki", format: "der" });
    if (!sameBytes(new Uint8Array(key), publicKeyOf(csr))) throw bad("it is for another key");
    const { id, addresses } = identityOfLeaf(leafFacts(der), trustDomain);
    const expected = spiffeId(trustDomain, pod.namespace, pod.serviceAccount);
    if (id !== expected) throw bad(`it is for ${quoted(id, 256)}, not ${expected}`);
    if (!sameMembers(addresses, pod.addresses)) {
      throw bad(`its addresses are ${addresses.join(", ")}, not ${pod.addresses.join(", ")}`);
    }
    requireChain([leaf, ...intermediates], roots.map((root) => new X509Certificate(root)));
    return {
      chain: [...chain],
      notBefore: new Date(leaf.validFrom),
      notAfter: new Date(leaf.validTo),
      serial: leaf.serialNumber.toLowerCase(),
    };
  } catch (error) {
    if (error instanceof IssuingError) throw error;
    throw bad(errorText(error), error);
  }
}

function requireChain(chain: readonly X509Certificate[], roots: readonly X509Certificate[]): void {
  const now = new Date();
  chain.forEach((certificate, i) => {
    if (new Date(certificate.validTo) <= now) {
      throw bad(`it expired on ${new Date(certificate.validTo).toISOString()}`);
    }
    if (new Date(certificate.validFrom) > now) {
      throw bad(`it is not valid before ${new Date(certificate.validFrom).toISOString()}`);
    }
    const issuer = chain[i + 1];
    if (issuer !== undefined && !(issuer.ca && isIssuedBy(certificate, issuer))) {
      throw bad("its chain is broken");
    }
  });
  const last = chain.at(-1);
  const known = last !== undefined &&
    roots.some((root) => new Date(root.validTo) > now && isIssuedBy(last, root));
  if (!known) {
    throw new IssuingError(
      "unknown_root",
      "Cannot use the issued certificate: it leads to no root of the trust bundle",
    );
  }
}

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

/** The SubjectPublicKeyInfo of a PKCS#10 request (RFC 2986 4.1): the third field of its first. */
export function publicKeyOf(csr: Uint8Array): Uint8Array {
  const info = element(csr, element(csr, 0).content);
  const version = element(csr, info.content);
  const subject = element(csr, version.end);
  return csr.subarray(subject.end, element(csr, subject.end).end);
}

/** Where the DER element at `at` has its contents, and where it ends. */
function element(bytes: Uint8Array, at: number): { content: number; end: number } {
  const first = bytes[at + 1] ?? 0;
  const digits = first < 0x80 ? 0 : first & 0x7f;
  const length = digits === 0
    ? first
    : bytes.subarray(at + 2, at + 2 + digits).reduce((sum, byte) => sum * 256 + byte, 0);
  const content = at + 2 + digits;
  return { content, end: content + length };
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function sameMembers(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((member) => b.includes(member));
}

function bad(what: string, cause?: unknown): IssuingError {
  return new IssuingError(
    "bad_certificate",
    `Cannot use the issued certificate: ${what.slice(0, 500)}`,
    cause === undefined ? undefined : { cause },
  );
}

/** The leaf and the intermediates between it and its root: peers verify to this depth. */
const MAX_CHAIN = 4;
