import { quoted } from "../names.ts";
import type { Issuer } from "../identity/issuer.ts";
import { MAX_TTL_SECONDS, provenKey, signLeaf } from "../identity/leaf.ts";
import { validTrustDomain } from "../identity/spiffe.ts";
import { verifyIssued } from "../identity/verify_issued.ts";

/** Where the in-process issuer keeps its CA, and what it signs. */
export interface InProcessIssuerOptions {
  /** Holds `ca.key` and `ca.crt`; made with mode 0700 when it does not exist. */
  directory: string;
  trustDomain: string;
  /** Lifetime of a pod's certificate, whole seconds, at most 90 days; never beyond the CA's own. */
  ttlSeconds: number;
}

/**
 * The issuer for `--cluster DIR`, where there is no signer: a CA in a private directory that the
 * agents on this machine share. Same interface and same template as the signer's.
 *
 * @throws {IssuingError} `ca_unusable`, naming the file and what to do; {TypeError} on invalid
 * options.
 */
export async function openInProcessIssuer(options: InProcessIssuerOptions): Promise<Issuer> {
  const { directory, trustDomain, ttlSeconds } = options;
  if (!validTrustDomain(trustDomain)) {
    throw new TypeError(`Cannot open the CA: ${quoted(trustDomain)} is no trust domain`);
  }
  if (!Number.isInteger(ttlSeconds) || ttlSeconds < 1 || ttlSeconds > MAX_TTL_SECONDS) {
    throw new TypeError(
      `Cannot open the CA: a lifetime of ${ttlSeconds} s is not within 1 and ${MAX_TTL_SECONDS}`,
    );
  }
  // Loaded here, not above: the X.509 library takes 24 MB, which only this issuer's users should
  // pay.
  const ca = await import("./ca_directory.ts");
  const x509 = await import("@peculiar/x509");
  const authority = await ca.openCaDirectory(directory, trustDomain);
  const root = new Uint8Array(authority.certificate.rawData);
  const issue: Issuer["issue"] = async (pod, { csr }, signal) => {
    signal?.throwIfAborted();
    ca.requireCurrent(`${directory}/ca.crt`, authority.certificate, new Date());
    const publicKey = await provenKey(x509, csr);
    const leaf = await signLeaf(x509, authority, publicKey, pod, { trustDomain, ttlSeconds });
    signal?.throwIfAborted();
    const chain = leaf.chain.map((der) => new Uint8Array(der));
    const spki = new Uint8Array(await crypto.subtle.exportKey("spki", publicKey));
    return verifyIssued(chain, { pod, publicKey: spki, trustDomain, roots: [root] });
  };
  // One after the other: it is all one thread's work, and 50 at once leave 20 MB more heap behind.
  let last: Promise<unknown> = Promise.resolve();
  return {
    issue(pod, request, signal) {
      const next = last.then(() => issue(pod, request, signal));
      last = next.catch(() => {}); // its caller is told
      return next;
    },
    trustBundle: () => Promise.resolve([root]),
  };
}
