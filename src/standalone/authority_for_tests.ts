/**
 * Certificates for addresses that no issuer names: a loopback address is a pod's in tests without
 * root.
 */
import "reflect-metadata"; // @peculiar/x509 needs it loaded first
import * as x509 from "@peculiar/x509";
import { ECDSA_P256, newCa } from "../identity/new_ca.ts";
import { DIRECTORY_ATTRIBUTES, encodePodUid } from "../identity/pod_uid.ts";
import { spiffeId } from "../identity/spiffe.ts";
import { decodePem } from "../identity/pem.ts";
import type { RelayCredentials } from "../relay/messages.ts";

export const TRUST_DOMAIN = "cluster.local";

/**
 * What the pod `uid-<its first address>` of the namespace `shop` shows, for so many seconds from
 * now. Its CA lives as long as this process.
 */
export async function shopCredentials(
  addresses: readonly string[],
  serviceAccount: string,
  seconds = 3_600,
): Promise<RelayCredentials> {
  const { root, key } = await (authority ??= newAuthority());
  const keys = await crypto.subtle.generateKey(ECDSA_P256, true, ["sign", "verify"]);
  const notAfter = new Date(Math.floor(Date.now() / 1000 + seconds) * 1000);
  const leaf = await x509.X509CertificateGenerator.create({
    issuer: root.subjectName,
    notBefore: new Date(Date.now() - 7_200_000),
    notAfter,
    publicKey: keys.publicKey,
    signingKey: key,
    signingAlgorithm: ECDSA_P256,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        x509.ExtendedKeyUsage.serverAuth,
        x509.ExtendedKeyUsage.clientAuth,
      ]),
      new x509.SubjectAlternativeNameExtension([
        { type: "url", value: spiffeId(TRUST_DOMAIN, "shop", serviceAccount) },
        ...addresses.map((value) => ({ type: "ip" as const, value })),
      ], true),
      new x509.Extension(DIRECTORY_ATTRIBUTES, false, encodePodUid(`uid-${addresses[0]}`)),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(root.publicKey),
    ],
  });
  return {
    chain: [new Uint8Array(leaf.rawData)],
    privateKey: new Uint8Array(await crypto.subtle.exportKey("pkcs8", keys.privateKey)),
    roots: [new Uint8Array(root.rawData)],
    notAfter: notAfter.getTime(),
  };
}

interface Authority {
  readonly root: x509.X509Certificate;
  readonly key: CryptoKey;
}

let authority: Promise<Authority> | undefined;

async function newAuthority(): Promise<Authority> {
  const { certificate, key } = await newCa(TRUST_DOMAIN);
  const [pkcs8 = new Uint8Array()] = decodePem(key, "PRIVATE KEY");
  return {
    root: new x509.X509Certificate(certificate),
    key: await crypto.subtle.importKey("pkcs8", pkcs8, ECDSA_P256, false, ["sign"]),
  };
}
