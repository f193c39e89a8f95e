import { X509Certificate } from "node:crypto";
import { sameBytes, sameMembers } from "../same.ts";
import { errorText } from "../error_text.ts";
import { quoted } from "../names.ts";
import { type IssuedCertificate, IssuingError, type PodIdentity } from "./issuer.ts";
import { spiffeId } from "./spiffe.ts";
import type { LeafFacts } from "../leaf_facts.ts";
import { identityOfLeaf } from "./verify.ts";

/** What an issued certificate must fit. */
export interface Expected {
  readonly pod: PodIdentity;
  /** The SubjectPublicKeyInfo that was asked for, DER. */
  readonly publicKey: Uint8Array;
  readonly trustDomain: string;
  /** DER. */
  readonly roots: readonly Uint8Array[];
  /** Reads a leaf's DER as peers do (native/certificate.ts). */
  readonly leafFacts: (der: Uint8Array<ArrayBuffer>) => LeafFacts;
}

/**
 * verifyIssued judges an issued certificate as peers will, so that a pod never serves with one that
 * they refuse: it is for our key, has the pod's identity and addresses, is valid now, and leads to
 * a root of the bundle.
 *
 * @throws {IssuingError} `bad_certificate`; `unknown_root` when only the root is missing (yet).
 */
export function verifyIssued(
  chain: readonly Uint8Array<ArrayBuffer>[],
  { pod, publicKey, trustDomain, roots, leafFacts }: Expected,
): IssuedCertificate {
  const [der] = chain;
  if (der === undefined || chain.length > MAX_CHAIN) {
    throw bad(`${chain.length} certificates were sent, 1 to ${MAX_CHAIN} are possible`);
  }
  try {
    const [leaf, ...intermediates] = chain.map((one) => new X509Certificate(one));
    if (leaf === undefined) throw bad("there is none");
    const key = leaf.publicKey.export({ type: "spki", format: "der" });
    if (!sameBytes(new Uint8Array(key), publicKey)) throw bad("it is for another key");
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

function bad(what: string, cause?: unknown): IssuingError {
  return new IssuingError(
    "bad_certificate",
    `Cannot use the issued certificate: ${what.slice(0, 500)}`,
    cause === undefined ? undefined : { cause },
  );
}

/** The leaf and the intermediates between it and its root: peers verify to this depth. */
const MAX_CHAIN = 4;
