import { createHash } from "node:crypto";
import type * as X509 from "@peculiar/x509";
import { addressFamily, formatAddress, parseAddress, specialAddress } from "../addresses.ts";
import { isDnsSubdomain, isPodUid, quoted } from "../names.ts";
import { type IssuedCertificate, IssuingError, type PodIdentity } from "./issuer.ts";
import { DIRECTORY_ATTRIBUTES, encodePodUid } from "./pod_uid.ts";
import { spiffeId } from "./spiffe.ts";

/**
 * Who signs. Peers trust this very certificate, whoever has signed it, so a leaf is all that they
 * are shown.
 */
export interface SigningAuthority {
  readonly certificate: X509.X509Certificate;
  /** ECDSA P-256 or P-384, or RSA (PKCS#1 v1.5); not extractable. */
  readonly privateKey: CryptoKey;
}

/** What a leaf says, all of it the issuer's own knowledge. */
export interface LeafOptions {
  readonly trustDomain: string;
  /** From now; the certificate never outlives the authority's. */
  readonly ttlSeconds: number;
}

/** Lifetimes that may be configured, in seconds. */
export const MAX_TTL_SECONDS = 90 * 86_400;

/**
 * Signs a pod's certificate: the one template of all issuers. Nothing in it comes from a request
 * but the key, which {@link provenKey} has taken from it. `x509` is passed in: the library takes 24
 * MB, which only issuers should pay.
 *
 * @throws {IssuingError} `bad_pod` or `no_address` when the pod can have no certificate.
 */
export async function signLeaf(
  x509: typeof X509,
  authority: SigningAuthority,
  publicKey: CryptoKey,
  pod: PodIdentity,
  options: LeafOptions,
): Promise<IssuedCertificate> {
  const id = idOf(pod, options.trustDomain);
  const names = { id, addresses: addressesOf(pod), podUid: pod.uid };
  return await signNames(x509, authority, publicKey, names, options.ttlSeconds);
}

/** What a certificate says of a pod. */
export interface LeafNames {
  /** SPIFFE ID. */
  readonly id: string;
  readonly addresses: readonly string[];
  readonly podUid: string;
}

/** As {@link signLeaf}, for names that have been judged, or that nobody will ever show. */
export async function signNames(
  x509: typeof X509,
  authority: SigningAuthority,
  publicKey: CryptoKey,
  { id, addresses, podUid }: LeafNames,
  ttlSeconds: number,
): Promise<IssuedCertificate> {
  const issuer = authority.certificate;
  const now = Math.floor(Date.now() / 1000) * 1000; // X.509 counts whole seconds
  const issuerKeyId = issuer.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId;
  const leaf = await x509.X509CertificateGenerator.create({
    serialNumber: newSerial(),
    issuer: issuer.subjectName,
    // The subject stays empty: only the SAN names a pod, so it must be critical (RFC 5280 4.2.1.6).
    notBefore: new Date(Math.max(now - CLOCK_SKEW_MS, issuer.notBefore.getTime())),
    notAfter: new Date(Math.min(now + ttlSeconds * 1000, issuer.notAfter.getTime())),
    publicKey,
    signingKey: authority.privateKey,
    signingAlgorithm: signingAlgorithm(authority.privateKey),
    extensions: [
      ...fixedExtensions(x509),
      new x509.SubjectAlternativeNameExtension([
        { type: "url", value: id },
        ...addresses.map((value) => ({ type: "ip" as const, value })),
      ], true),
      new x509.Extension(DIRECTORY_ATTRIBUTES, false, encodePodUid(podUid)),
      new x509.SubjectKeyIdentifierExtension(await keyIdOf(publicKey)),
      issuerKeyId === undefined
        ? await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey)
        : new x509.AuthorityKeyIdentifierExtension(issuerKeyId),
    ],
  });
  return {
    chain: [new Uint8Array(leaf.rawData)],
    notBefore: leaf.notBefore,
    notAfter: leaf.notAfter,
    serial: leaf.serialNumber,
  };
}

/**
 * The public key of a PKCS#10 request in DER, once its signature has shown that the requester holds
 * the private one. Only ECDSA P-256 is taken.
 *
 * @throws {IssuingError} `bad_request`, `bad_key` or `bad_proof`.
 */
export async function provenKey(x509: typeof X509, der: Uint8Array): Promise<CryptoKey> {
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

/** What all leaves have, encoded once. */
function fixedExtensions(x509: typeof X509): readonly X509.Extension[] {
  return fixed ??= [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
    new x509.ExtendedKeyUsageExtension([
      x509.ExtendedKeyUsage.serverAuth,
      x509.ExtendedKeyUsage.clientAuth,
    ]),
  ];
}

let fixed: readonly X509.Extension[] | undefined;

/**
 * SHA-1 of the public point (RFC 5280 4.2.1.2, method 1), hexadecimal. The library's own way takes
 * 0.6 ms.
 */
async function keyIdOf(publicKey: CryptoKey): Promise<string> {
  const point = new Uint8Array(await crypto.subtle.exportKey("raw", publicKey));
  return createHash("sha1").update(point).digest("hex");
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
  const families = new Set<number>();
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
    if (families.size === families.add(addressFamily(bytes)).size) {
      throw new IssuingError("bad_pod", `Cannot issue: ${where} has two addresses of one family`);
    }
    return formatAddress(bytes);
  });
}

/** A random positive serial number of 128 bits, hexadecimal (RFC 5280 4.1.2.2 allows 20 octets). */
export function newSerial(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The hash is as strong as the curve; RSA keys of all sizes get SHA-256. */
function signingAlgorithm(key: CryptoKey): { name: string; hash: string } {
  const { name, namedCurve } = key.algorithm as { name: string; namedCurve?: string };
  return { name, hash: namedCurve === "P-384" ? "SHA-384" : "SHA-256" };
}

const BAD_PROOF = "Cannot issue: the request is not signed with the key it asks a certificate for";

/** How far a peer's clock may be behind ours and still accept a new certificate. */
const CLOCK_SKEW_MS = 5 * 60_000;

/**
 * Our own requests have some 220 bytes, an RSA one a thousand or two. The signer keeps very many.
 */
export const MAX_CSR_BYTES = 4_096;
