import "reflect-metadata"; // @peculiar/x509 needs it loaded first
import * as x509 from "@peculiar/x509";
import { createPrivateKey, createPublicKey } from "node:crypto";
import * as v from "valibot";
import { IssuingError } from "../identity/issuer.ts";
import { GATEWAY_NAMESPACE } from "../constants.ts";
import { type SigningAuthority, signNames } from "../identity/leaf.ts";
import { caId, ECDSA_P256, newCa } from "../identity/new_ca.ts";
import { errorText } from "../error_text.ts";
import { decodePem } from "../identity/pem.ts";
import { CA_SECRET } from "../identity/signing_names.ts";
import { spiffeId } from "../identity/spiffe.ts";
import type { ApiRequests } from "../kubernetes/api.ts";
import { ApiError } from "../kubernetes/errors.ts";
import type { V1Secret, Wire } from "../kubernetes/models.ts";
import { logger } from "../log.ts";
import { quoted } from "../names.ts";
import { sameBytes } from "../same.ts";
import { chainFlaw } from "../native/verify_chain.ts";

const log = logger("signer");

/** The Secret's CA, read and checked. */
export interface ClusterCa extends SigningAuthority {
  /**
   * DER of what peers trust: the CA's own certificate. Whoever has signed that signs for others,
   * too, and none of them can speak for a pod here.
   */
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
 * `tls.crt` with the CA's certificate first (its issuers may follow, and mean nothing here);
 * `tls.key` in PKCS#8, PKCS#1 or SEC1. ECDSA P-256, P-384, or RSA of 2048 bits or more.
 *
 * @throws {IssuingError} `ca_unusable`.
 */
export async function readCa(secret: unknown, trustDomain: string): Promise<ClusterCa> {
  const read = v.safeParse(SecretSchema, secret);
  if (!read.success) throw unusable("it is no Secret of type kubernetes.io/tls with a tls.crt");
  const { data } = read.output;
  const [certificate] = certificatesOf(data["tls.crt"]);
  if (certificate === undefined) throw unusable("tls.crt holds no certificate");
  requireCurrent(certificate);
  requireKey(certificate);
  requireTrustDomain(certificate, trustDomain);
  const spki = new Uint8Array(certificate.publicKey.rawData);
  const privateKey = await keyOf(data["tls.key"], spki);
  await requireAccepted({ certificate, privateKey }, trustDomain);
  return { certificate, privateKey, root: new Uint8Array(certificate.rawData) };
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

/** What is to be said of a CA's end before it has come; undefined while it is far away. */
export function expiryOf(
  { notBefore, notAfter }: Pick<x509.X509Certificate, "notBefore" | "notAfter">,
  now: Date,
): string | undefined {
  const [left, lifetime] = [notAfter.getTime() - now.getTime(), +notAfter - +notBefore];
  const end = notAfter.toISOString();
  if (left <= 0) return `the CA in Secret ${CA_SECRET} expired on ${end}: nothing is signed`;
  if (left > Math.min(WARNED_MILLISECONDS, lifetime / 10)) return undefined;
  return `the CA in Secret ${CA_SECRET} expires on ${end}: replace it before that`;
}

/**
 * The kinds of keys that certificates are signed with here. Whether it may sign is for
 * {@link requireAccepted} to say.
 */
function requireKey(certificate: x509.X509Certificate): void {
  const { namedCurve, modulusLength, name } = certificate.publicKey.algorithm as {
    name: string;
    namedCurve?: string;
    modulusLength?: number;
  };
  const fine = namedCurve === "P-256" || namedCurve === "P-384" ||
    (name.startsWith("RSASSA") && (modulusLength ?? 0) >= 2048);
  if (fine) return;
  const is = quoted(`${name} ${namedCurve ?? modulusLength ?? ""}`.trim());
  const whose = quoted(certificate.subject);
  throw unusable(`the key of ${whose} is ${is}, not P-256, P-384 or RSA of 2048 bits`);
}

/**
 * Peers must accept what the CA signs: a certificate that nobody will ever show is signed with it,
 * and verified as in a handshake. It has addresses only where they are given, since a CA may be
 * limited to some.
 */
export async function requireAccepted(
  authority: SigningAuthority,
  trustDomain: string,
  addresses: readonly string[] = [],
): Promise<void> {
  const { publicKey } = await crypto.subtle.generateKey(ECDSA_P256, true, ["sign", "verify"]);
  const id = spiffeId(trustDomain, GATEWAY_NAMESPACE, "default");
  const names = { id, addresses, podUid: "none" };
  const { chain } = await signNames(x509, authority, publicKey, names, TRIAL_SECONDS)
    .catch((cause) => {
      throw unusable(`it cannot sign: ${errorText(cause)}`);
    });
  const flaw = chainFlaw(chain, [new Uint8Array(authority.certificate.rawData)]);
  if (flaw !== undefined) throw unusable(`peers would refuse what it signs: ${flaw.reason}`);
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

/** The private key, which must be the one of the public key `spki` (DER). */
async function keyOf(base64: string, spki: Uint8Array): Promise<CryptoKey> {
  let isTheOne = true;
  try {
    // Tools write parameters or certificates beside it.
    const key = createPrivateKey(PRIVATE_KEY.exec(textOf(base64))?.[0] ?? "");
    const own = createPublicKey(key).export({ type: "spki", format: "der" });
    isTheOne = sameBytes(new Uint8Array(own), spki);
    const curve = key.asymmetricKeyDetails?.namedCurve === "secp384r1" ? "P-384" : "P-256";
    const algorithm = key.asymmetricKeyType === "rsa"
      ? { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }
      : { name: "ECDSA", namedCurve: curve };
    const pkcs8 = new Uint8Array(key.export({ type: "pkcs8", format: "der" }));
    if (isTheOne) return await crypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]);
  } catch {
    // The cause is left out: no part of a key may get into a log.
  }
  throw unusable(
    isTheOne
      ? "tls.key is no private key in PEM that can be used here"
      : "tls.key is not the key of tls.crt",
  );
}

function certificatesOf(base64: string): x509.X509Certificate[] {
  try {
    return decodePem(textOf(base64), "CERTIFICATE", 16).map((der) => new x509.X509Certificate(der));
  } catch (cause) {
    throw unusable("tls.crt cannot be read as PEM of certificates", cause);
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
  data: v.object({ "tls.crt": entry, "tls.key": entry }),
});

const PRIVATE_KEY = /-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]+-----END [A-Z ]*PRIVATE KEY-----/;

const TRIAL_SECONDS = 60;

/** Before a CA's end it is said that it comes. */
const WARNED_MILLISECONDS = 14 * 86_400_000;
