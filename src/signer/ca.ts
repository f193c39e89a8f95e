import "reflect-metadata"; // @peculiar/x509 needs it loaded first
import * as x509 from "@peculiar/x509";
import { createPrivateKey } from "node:crypto";
import * as v from "valibot";
import { IssuingError } from "../identity/issuer.ts";
import type { SigningAuthority } from "../identity/leaf.ts";
import { caId, newCa } from "../identity/new_ca.ts";
import { decodePem } from "../identity/pem.ts";
import { CA_SECRET } from "../identity/signing_names.ts";
import type { ApiRequests } from "../kubernetes/api.ts";
import { ApiError } from "../kubernetes/errors.ts";
import type { V1Secret, Wire } from "../kubernetes/models.ts";
import { logger } from "../log.ts";
import { quoted } from "../names.ts";

const log = logger("signer");

/** The Secret's CA, read and checked. */
export interface ClusterCa extends SigningAuthority {
  /** DER of the root that peers must trust: the CA itself, or what an intermediate CA leads to. */
  readonly root: Uint8Array<ArrayBuffer>;
}

/**
 * Reads the CA from its Secret, and makes it when there is none. Any number of signers may do so at
 * once: the API server lets one of them create the Secret, and all read that.
 *
 * @throws {IssuingError} `ca_unusable`, saying what is wrong with the Secret. Never repairs or
 * replaces it.
 * @throws {ApiError} when the API server refuses; the signal's reason.
 */
export async function openCa(
  api: ApiRequests,
  namespace: string,
  trustDomain: string,
  signal?: AbortSignal,
): Promise<ClusterCa> {
  const options = signal === undefined ? {} : { signal };
  const path = `/api/v1/namespaces/${namespace}/secrets`;
  try {
    return await readCa(await api.request("GET", `${path}/${CA_SECRET}`, options), trustDomain);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
  }
  const { key, certificate } = await newCa(trustDomain);
  const encode = (text: string) => new TextEncoder().encode(text).toBase64();
  try {
    await api.request("POST", path, {
      ...options,
      body: {
        apiVersion: "v1",
        kind: "Secret",
        metadata: { name: CA_SECRET, namespace },
        type: "kubernetes.io/tls",
        data: { "tls.crt": encode(certificate), "tls.key": encode(key) },
      } satisfies Wire<V1Secret>,
    });
    log.info("made a new CA in Secret {secret}", { secret: `${namespace}/${CA_SECRET}` });
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 409) throw error;
  }
  return await readCa(await api.request("GET", `${path}/${CA_SECRET}`, options), trustDomain);
}

/**
 * The CA in a Secret of type kubernetes.io/tls, as made here, by a person or by cert-manager:
 * `tls.crt` with the CA's certificate first and its issuers after it, the root last or in `ca.crt`;
 * `tls.key` in PKCS#8, PKCS#1 or SEC1. ECDSA P-256, P-384, or RSA of 2048 bits or more.
 *
 * @throws {IssuingError} `ca_unusable`.
 */
export async function readCa(secret: unknown, trustDomain: string): Promise<ClusterCa> {
  const read = v.safeParse(SecretSchema, secret);
  if (!read.success) throw unusable("it is no Secret of type kubernetes.io/tls with a tls.crt");
  const { data } = read.output;
  const given = certificatesOf(data["tls.crt"], "tls.crt");
  const [certificate] = given;
  if (certificate === undefined) throw unusable("tls.crt holds no certificate");
  const path = await pathOf(certificate, [...given, ...certificatesOf(data["ca.crt"], "ca.crt")]);
  path.forEach((one, depth) => requireCa(one, depth));
  requireTrustDomain(certificate, trustDomain);
  const privateKey = await keyOf(data["tls.key"]);
  await requirePair(certificate, privateKey);
  const ders = path.map((one) => new Uint8Array(one.rawData));
  const root = ders.pop() ?? new Uint8Array();
  return { certificate, privateKey, root, intermediates: ders };
}

/** @throws {IssuingError} `ca_unusable` when the CA's certificate is not valid now. */
export function requireCurrent(certificate: x509.X509Certificate): void {
  const now = new Date();
  if (now >= certificate.notAfter) {
    throw unusable(`it expired on ${certificate.notAfter.toISOString()}`);
  }
  if (now < certificate.notBefore) {
    throw unusable(`it is not valid before ${certificate.notBefore.toISOString()}`);
  }
}

/** From the CA to its root, each signed by the next. */
async function pathOf(
  certificate: x509.X509Certificate,
  others: readonly x509.X509Certificate[],
): Promise<x509.X509Certificate[]> {
  const path = [certificate];
  for (let last = certificate; path.length <= MAX_PATH;) {
    if (await isSignedBy(last, last)) return path;
    let issuer: x509.X509Certificate | undefined;
    for (const other of others) {
      if (issuer === undefined && await isSignedBy(last, other)) issuer = other;
    }
    if (issuer === undefined) {
      throw unusable(`${quoted(last.subject)} is not signed by itself or by another in it`);
    }
    path.push(last = issuer);
  }
  throw unusable(`more than ${MAX_PATH} certificates lead to its root`);
}

async function isSignedBy(
  certificate: x509.X509Certificate,
  issuer: x509.X509Certificate,
): Promise<boolean> {
  if (certificate.issuer !== issuer.subject) return false;
  return await certificate.verify({ publicKey: issuer.publicKey, signatureOnly: true })
    .catch(() => false);
}

/** `depth` is the number of CAs below this one, to which a path length may be limited. */
function requireCa(certificate: x509.X509Certificate, depth: number): void {
  requireCurrent(certificate);
  const constraints = certificate.getExtension(x509.BasicConstraintsExtension);
  const usages = certificate.getExtension(x509.KeyUsagesExtension)?.usages ?? 0;
  if (constraints?.ca !== true || (usages & x509.KeyUsageFlags.keyCertSign) === 0) {
    throw unusable(`${quoted(certificate.subject)} may not sign certificates`);
  }
  if (constraints.pathLength !== undefined && constraints.pathLength < depth) {
    throw unusable(`${quoted(certificate.subject)} may not have ${depth} CAs below it`);
  }
  const { namedCurve, modulusLength, name } = certificate.publicKey.algorithm as {
    name: string;
    namedCurve?: string;
    modulusLength?: number;
  };
  const fine = namedCurve === "P-256" || namedCurve === "P-384" ||
    (name.startsWith("RSASSA") && (modulusLength ?? 0) >= 2048);
  if (!fine) {
    const is = `${name} ${namedCurve ?? modulusLength ?? ""}`.trim();
    throw unusable(
      `the key of ${quoted(certificate.subject)} is ${
        quoted(is)
      }, not P-256, P-384 or RSA of 2048 bits`,
    );
  }
}

/**
 * X509-SVID 3.2: a signing certificate need not have an ID, but if it has one it is its trust
 * domain's.
 */
function requireTrustDomain(certificate: x509.X509Certificate, trustDomain: string): void {
  const names = certificate.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? [];
  const ids = names.filter(({ type, value }) => type === "url" && value.startsWith("spiffe:"));
  const foreign = ids.find(({ value }) => value !== caId(trustDomain));
  if (foreign !== undefined) {
    throw unusable(`its trust domain is ${quoted(foreign.value)}, not ${caId(trustDomain)}`);
  }
}

async function keyOf(base64: string): Promise<CryptoKey> {
  try {
    const key = createPrivateKey(textOf(base64));
    const curve = key.asymmetricKeyDetails?.namedCurve === "secp384r1" ? "P-384" : "P-256";
    const algorithm = key.asymmetricKeyType === "rsa"
      ? { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }
      : { name: "ECDSA", namedCurve: curve };
    const pkcs8 = new Uint8Array(key.export({ type: "pkcs8", format: "der" }));
    return await crypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]);
  } catch {
    // The cause is left out: no part of a key may get into a log.
    throw unusable("tls.key is no private key in PEM that can be used here");
  }
}

/** The key must be the certificate's: sign with one, verify with the other. */
async function requirePair(
  certificate: x509.X509Certificate,
  privateKey: CryptoKey,
): Promise<void> {
  const probe = crypto.getRandomValues(new Uint8Array(32));
  const algorithm = { ...privateKey.algorithm, hash: "SHA-256" };
  const signature = await crypto.subtle.sign(algorithm, privateKey, probe);
  const fits = await certificate.publicKey.export(algorithm, ["verify"])
    .then((key) => crypto.subtle.verify(algorithm, key, signature, probe))
    .catch(() => false);
  if (!fits) throw unusable("tls.key is not the key of tls.crt");
}

function certificatesOf(base64: string | undefined, entry: string): x509.X509Certificate[] {
  if (base64 === undefined) return [];
  try {
    return decodePem(textOf(base64), "CERTIFICATE", 16).map((der) => new x509.X509Certificate(der));
  } catch (cause) {
    throw unusable(`${entry} cannot be read as PEM of certificates`, cause);
  }
}

function textOf(base64: string): string {
  return new TextDecoder().decode(Uint8Array.fromBase64(base64));
}

function unusable(what: string, cause?: unknown): IssuingError {
  const message = `Cannot use the CA in Secret ${CA_SECRET}: ${what}`;
  return new IssuingError("ca_unusable", message, cause === undefined ? undefined : { cause });
}

/** The API server's limit for a Secret is 1 MiB; a CA needs a few kilobytes. */
const entry = v.pipe(v.string(), v.maxLength(131_072));

const SecretSchema = v.object({
  type: v.literal("kubernetes.io/tls"),
  data: v.object({ "tls.crt": entry, "tls.key": entry, "ca.crt": v.optional(entry) }),
});

/** As deep as peers verify (SSL_CTX_set_verify_depth). */
const MAX_PATH = 4;
