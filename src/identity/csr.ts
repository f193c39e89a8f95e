/**
 * A new pod key and the request for its certificate. The request is written here, byte by byte: it
 * has one shape, and the library that could write it costs the agent 24 MB of memory.
 */

import { der, sequence } from "./der.ts";
import type { CertificateRequest } from "./issuer.ts";

/** A fresh key and a request that proves its possession. */
export interface KeyAndRequest extends CertificateRequest {
  /** PKCS#8 DER. The agent's memory only: never written, logged or sent. */
  readonly privateKey: Uint8Array;
}

/**
 * Makes an ECDSA P-256 key and a certificate signing request with an empty subject and no
 * attributes: the issuer knows who the pod is and would ignore whatever else a request says.
 */
export async function newKeyAndRequest(): Promise<KeyAndRequest> {
  const keys = await crypto.subtle.generateKey(P256, true, ["sign", "verify"]);
  const publicKey = new Uint8Array(await crypto.subtle.exportKey("spki", keys.publicKey));
  const info = sequence(
    der(0x02, Uint8Array.of(0)), // version v1(0)
    sequence(), // subject: an empty RDNSequence
    publicKey,
    der(0xa0), // attributes [0]: an empty SET
  );
  const signature = new Uint8Array(
    await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, keys.privateKey, info),
  );
  return {
    privateKey: new Uint8Array(await crypto.subtle.exportKey("pkcs8", keys.privateKey)),
    publicKey,
    csr: sequence(
      info,
      sequence(ECDSA_WITH_SHA256),
      der(0x03, Uint8Array.of(0), ecdsaSignature(signature)), // BIT STRING, no unused bits
    ),
  };
}

const P256 = { name: "ECDSA", namedCurve: "P-256" } as const;

/** 1.2.840.10045.4.3.2, RFC 5758 3.2; its parameters are absent. */
const ECDSA_WITH_SHA256 = Uint8Array.of(0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2);

/** WebCrypto's r and s, 32 big-endian bytes each, as RFC 3279 2.2.3's SEQUENCE of two INTEGERs. */
function ecdsaSignature(raw: Uint8Array): Uint8Array<ArrayBuffer> {
  return sequence(positiveInteger(raw.subarray(0, 32)), positiveInteger(raw.subarray(32)));
}

/** DER demands the fewest bytes, and a leading zero where the first bit would read as a sign. */
function positiveInteger(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const first = bytes.findIndex((byte) => byte !== 0);
  const digits = first === -1 ? Uint8Array.of(0) : bytes.subarray(first);
  return (digits[0] ?? 0) & 0x80 ? der(0x02, Uint8Array.of(0), digits) : der(0x02, digits);
}
