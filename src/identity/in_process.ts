import type * as X509 from "@peculiar/x509";
import { formatAddress, parseAddress, specialAddress } from "../addresses.ts";
import { isDnsSubdomain, isPodUid, quoted } from "../names.ts";
import type { CertificateAuthority } from "./ca_directory.ts";
import { type IssuedCertificate, type Issuer, IssuingError, type PodIdentity } from "./issuer.ts";
import { spiffeId, validTrustDomain } from "./spiffe.ts";

/** Where the in-process issuer keeps its CA, and what it signs. */
export interface InProcessIssuerOptions {
  /** Holds `ca.key` and `ca.crt`; made with mode 0700 when it does not exist. */
  directory: string;
  trustDomain: string;
  /** Lifetime of a pod's certificate, whole seconds, at most 90 days; never beyond the CA's own. */
  ttlSeconds: number;
}

/**
 * The issuer for `--cluster DIR`, where there is no signer: a CA in a private directory that the agents
 * on this machine share. Same interface and same template as the signer's.
 *
 * @throws {IssuingError} `ca_unusable`, naming the file and what to do; {TypeError} on invalid options.
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
  // Loaded here, not above: the X.509 library takes 24 MB, which only this issuer's users should pay.
  const ca = await import("./ca_directory.ts");
  const x509 = await import("@peculiar/x509");
  const authority = await ca.openCaDirectory(directory, trustDomain);
  const issue: Issuer["issue"] = async (pod, csr, signal) => {
    signal?.throwIfAborted();
    ca.requireCurrent(`${directory}/ca.crt`, authority.certificate, new Date());
    const id = idOf(pod, trustDomain);
    const addresses = addressesOf(pod);
    const publicKey = await provenKey(x509, csr);
    const leaf = await sign(x509, authority, publicKey, {
      id,
      addresses,
      ttlSeconds,
      serial: ca.newSerial(),
    });
    signal?.throwIfAborted();
    return leaf;
  };
  // One after the other: it is all one thread's work, and 50 at once leave 20 MB more heap behind.
  let last: Promise<unknown> = Promise.resolve();
  return {
    issue(pod, csr, signal) {
      const next = last.then(() => issue(pod, csr, signal));
      last = next.catch(() => {}); // its caller is told
      return next;
    },
    trustBundle: () => Promise.resolve([new Uint8Array(authority.certificate.rawData)]),
  };
}

function idOf(pod: PodIdentity, trustDomain: string): string {
  if (!isPodUid(pod.uid) || !isDnsSubdomain(pod.name)) {
    throw new IssuingError(
      "bad_pod",
      `Cannot issue: pod ${quoted(pod.name)} (UID ${quoted(pod.uid)}) has no valid name or UID`,
    );
  }
  try {
    return spiffeId(trustDomain, pod.namespace, pod.serviceAccount);
  } catch (cause) {
    throw new IssuingError("bad_pod", `Cannot issue for pod ${pod.name}`, { cause });
  }
}

/** An address in a certificate lets its holder speak for it: only what a pod can have gets in. */
function addressesOf(pod: PodIdentity): string[] {
  const where = `pod ${pod.namespace}/${pod.name}`;
  if (pod.addresses.length === 0) {
    throw new IssuingError("no_address", `Cannot issue: ${where} has no address yet`);
  }
  if (pod.addresses.length > 2) {
    throw new IssuingError(
      "bad_pod",
      `Cannot issue: ${where} has ${pod.addresses.length} addresses, at most 2 are possible`,
    );
  }
  return pod.addresses.map((text) => {
    let bytes: Uint8Array;
    try {
      bytes = parseAddress(text);
    } catch (cause) {
      throw new IssuingError("bad_pod", `Cannot issue for ${where}`, { cause });
    }
    const special = specialAddress(bytes);
    if (special !== undefined) {
      throw new IssuingError("bad_pod", `Cannot issue: ${text} of ${where} is ${special}`);
    }
    return formatAddress(bytes);
  });
}

/** The request's public key, once its signature has shown that the requester holds the private one. */
async function provenKey(x509: typeof X509, der: Uint8Array): Promise<CryptoKey> {
  if (der.length > MAX_CSR_BYTES) {
    throw new IssuingError("bad_request", `Cannot issue: the request has ${der.length} bytes`);
  }
  let request: X509.Pkcs10CertificateRequest;
  let algorithm: { name: string; namedCurve?: string };
  try {
    request = new x509.Pkcs10CertificateRequest(new Uint8Array(der));
    algorithm = request.publicKey.algorithm;
  } catch (cause) {
    throw new IssuingError("bad_request", "Cannot issue: no PKCS#10 request in DER", { cause });
  }
  if (algorithm.namedCurve !== "P-256") {
    const { name, namedCurve = "" } = algorithm;
    throw new IssuingError(
      "bad_key",
      `Cannot issue: the key is ${quoted(`${name} ${namedCurve}`.trim())}, not ECDSA P-256`,
    );
  }
  try {
    if (await request.verify()) {
      // Imported and exported again, so that the certificate has the key's one plain encoding.
      return await request.publicKey.export(
        { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as EcKeyImportParams,
        ["verify"],
      );
    }
  } catch (cause) {
    throw new IssuingError("bad_proof", BAD_PROOF, { cause });
  }
  throw new IssuingError("bad_proof", BAD_PROOF);
}

/** The whole template: nothing in it comes from the request but the key. */
async function sign(
  x509: typeof X509,
  authority: CertificateAuthority,
  publicKey: CryptoKey,
  pod: { id: string; addresses: string[]; ttlSeconds: number; serial: string },
): Promise<IssuedCertificate> {
  const root = authority.certificate;
  const now = Math.floor(Date.now() / 1000) * 1000; // X.509 counts whole seconds
  const { KeyUsageFlags, ExtendedKeyUsage } = x509;
  const rootKeyId = root.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId;
  const leaf = await x509.X509CertificateGenerator.create({
    serialNumber: pod.serial,
    issuer: root.subjectName,
    // The subject stays empty: only the SAN names a pod, so it must be critical (RFC 5280 4.2.1.6).
    notBefore: new Date(Math.max(now - CLOCK_SKEW_MS, root.notBefore.getTime())),
    notAfter: new Date(Math.min(now + pod.ttlSeconds * 1000, root.notAfter.getTime())),
    publicKey,
    signingKey: authority.privateKey,
    signingAlgorithm: { name: "ECDSA", hash: "SHA-256" },
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        ExtendedKeyUsage.serverAuth,
        ExtendedKeyUsage.clientAuth,
      ]),
      new x509.SubjectAlternativeNameExtension([
        { type: "url", value: pod.id },
        ...pod.addresses.map((value) => ({ type: "ip" as const, value })),
      ], true),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      rootKeyId === undefined
        ? await x509.AuthorityKeyIdentifierExtension.create(root.publicKey)
        : new x509.AuthorityKeyIdentifierExtension(rootKeyId),
    ],
  });
  return {
    chain: [new Uint8Array(leaf.rawData)],
    notBefore: leaf.notBefore,
    notAfter: leaf.notAfter,
    serial: leaf.serialNumber,
  };
}

const BAD_PROOF = "Cannot issue: the request is not signed with the key it asks a certificate for";

/** How far a peer's clock may be behind ours and still accept a new certificate. */
const CLOCK_SKEW_MS = 5 * 60_000;

/** Our own requests have some 220 bytes; an RSA one with many names a few thousand. */
const MAX_CSR_BYTES = 16_384;

const MAX_TTL_SECONDS = 90 * 86_400;
