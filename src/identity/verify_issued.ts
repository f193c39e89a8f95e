import { X509Certificate } from "node:crypto";
import { sameBytes, sameMembers } from "../same.ts";
import { errorText } from "../error_text.ts";
import { quoted } from "../names.ts";
import { type IssuedCertificate, IssuingError, type PodIdentity } from "./issuer.ts";
import { spiffeId } from "./spiffe.ts";
import type { LeafFacts } from "../leaf_facts.ts";
import { Certificate } from "../native/certificate.ts";
import { chainFlaw } from "../native/verify_chain.ts";
import { identityOfLeaf } from "./verify.ts";

/** What an issued certificate must fit. */
export interface Expected {
  readonly pod: PodIdentity;
  /** The SubjectPublicKeyInfo that was asked for, DER. */
  readonly publicKey: Uint8Array;
  readonly trustDomain: string;
  /** DER. */
  readonly roots: readonly Uint8Array[];
}

/**
 * verifyIssued judges a certificate as peers will, so that no pod serves with one that they refuse
 * and the signer gives none out: it is for the pod's key, has its identity and addresses, is valid
 * now, and leads to a root of the bundle.
 *
 * @throws {IssuingError} `bad_certificate`; `unknown_root` when only the root is missing (yet).
 */
export function verifyIssued(
  chain: readonly Uint8Array<ArrayBuffer>[],
  { pod, publicKey, trustDomain, roots }: Expected,
): IssuedCertificate {
  const [der] = chain;
  if (der === undefined || chain.length > MAX_CHAIN) {
    throw bad(`${chain.length} certificates were sent, 1 to ${MAX_CHAIN} are possible`);
  }
  try {
    const leaf = new X509Certificate(der);
    const key = leaf.publicKey.export({ type: "spki", format: "der" });
    if (!sameBytes(new Uint8Array(key), publicKey)) throw bad("it is for another key");
    const { id, addresses, podUid } = identityOfLeaf(factsOf(der), trustDomain);
    const expected = spiffeId(trustDomain, pod.namespace, pod.serviceAccount);
    if (id !== expected) throw bad(`it is for ${quoted(id, 256)}, not ${expected}`);
    if (!sameMembers(addresses, pod.addresses)) {
      throw bad(`its addresses are ${addresses.join(", ")}, not ${pod.addresses.join(", ")}`);
    }
    // A signer of an earlier build does not say.
    if (podUid !== undefined && podUid !== pod.uid) {
      throw bad(`it is for the pod ${quoted(podUid, 256)}, not ${pod.uid}`);
    }
    requireChain(chain, roots);
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

function requireChain(chain: readonly Uint8Array[], roots: readonly Uint8Array[]): void {
  const flaw = roots.length === 0 ? undefined : chainFlaw(chain, roots);
  if (roots.length === 0 || flaw?.isRootMissing) {
    throw new IssuingError(
      "unknown_root",
      "Cannot use the issued certificate: it leads to no root of the trust bundle",
    );
  }
  if (flaw === undefined) return;
  // What was issued just now is untimely only where two clocks differ.
  const clocks = flaw.isUntimely
    ? `: this node's clock, which says ${new Date().toISOString()}, or the signer's is wrong`
    : "";
  throw bad(`peers refuse it: ${flaw.reason}${clocks}`);
}

function factsOf(der: Uint8Array<ArrayBuffer>): LeafFacts {
  using certificate = Certificate.parse(der);
  return certificate.leafFacts();
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
