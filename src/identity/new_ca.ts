import "reflect-metadata"; // @peculiar/x509 needs it loaded first
import * as x509 from "@peculiar/x509";
import { newSerial } from "./leaf.ts";

/** A self-signed root for one trust domain, as PEM texts. */
export async function newCa(trustDomain: string): Promise<{ key: string; certificate: string }> {
  const keys = await crypto.subtle.generateKey(ECDSA_P256, true, ["sign", "verify"]);
  const now = Date.now();
  const { BasicConstraintsExtension, KeyUsagesExtension, KeyUsageFlags } = x509;
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    keys,
    name: "CN=kube-gateway CA",
    serialNumber: newSerial(),
    // The clocks of those who share the CA need not agree to the second.
    notBefore: new Date(now - HOUR),
    notAfter: new Date(now + CA_LIFETIME),
    signingAlgorithm: ECDSA_P256,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      // X509-SVID 3.2: a signing certificate's SPIFFE ID is the trust domain's, without a path.
      new x509.SubjectAlternativeNameExtension([{ type: "url", value: caId(trustDomain) }]),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const pkcs8 = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    key: x509.PemConverter.encode(pkcs8, "PRIVATE KEY") + "\n",
    certificate: certificate.toString("pem") + "\n",
  };
}

/** A signing certificate's own SPIFFE ID (X509-SVID 3.2): the trust domain's, without a path. */
export function caId(trustDomain: string): string {
  return `spiffe://${trustDomain}`;
}

/** ECDSA with the one curve and hash used here. */
export const ECDSA_P256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

const HOUR = 3_600_000;
const CA_LIFETIME = 3650 * 24 * HOUR;
