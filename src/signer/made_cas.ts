/** For tests: certificate authorities as people's tools write them. */
import { match, strictEqual } from "node:assert/strict";
import "reflect-metadata"; // @peculiar/x509 needs it loaded first
import * as x509 from "@peculiar/x509";
import { openssl } from "../identity/openssl_command.ts";
import { encodePem } from "../identity/pem.ts";

/** PEM texts. */
export interface Made {
  certificate: string;
  key: string;
  root?: string;
}

/** By `openssl req -x509` with these arguments. */
export async function make(directory: string, name: string, args: string): Promise<Made> {
  const file = `${directory}/${name}`;
  const made = await openssl(
    `req -x509 -nodes -keyout ${file}.key -out ${file}.crt ${args}`.split(" "),
  );
  strictEqual(made.ok, true, made.text);
  return {
    certificate: await Deno.readTextFile(`${file}.crt`),
    key: await Deno.readTextFile(`${file}.key`),
  };
}

/** One that was valid in 2020. */
export function expired(): Promise<Made> {
  return between(new Date("2020-01-01"), new Date("2021-01-01"));
}

/** One that has lived for 99 days, and has an hour left. */
export function endsSoon(): Promise<Made> {
  const [day, hour] = [86_400_000, 3_600_000];
  return between(new Date(Date.now() - 99 * day), new Date(Date.now() + hour));
}

async function between(notBefore: Date, notAfter: Date): Promise<Made> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    keys,
    name: "CN=old",
    notBefore,
    notAfter,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const pkcs8 = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    certificate: certificate.toString("pem"),
    key: encodePem([new Uint8Array(pkcs8)], "PRIVATE KEY"),
  };
}

/** The key in SEC1 or PKCS#1. */
export async function traditional(key: string): Promise<string> {
  const said = await openssl(["pkey", "-traditional"], new TextEncoder().encode(key));
  match(said.text, /BEGIN (EC|RSA) PRIVATE KEY/);
  return said.text;
}

/** The Secret that holds it. */
export function secretOf(
  { certificate, key, root }: Made,
  type = "kubernetes.io/tls",
): unknown {
  return {
    type,
    data: {
      "tls.crt": btoa(certificate),
      "tls.key": btoa(key),
      ...(root === undefined ? {} : { "ca.crt": btoa(root) }),
    },
  };
}
