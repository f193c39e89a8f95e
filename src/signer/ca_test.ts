import { match, ok, rejects, strictEqual } from "node:assert/strict";
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import { CA as CA_SECRET, SigningCluster } from "../../tests/lab/signing.ts";
import { newKeyAndRequest } from "../identity/csr.ts";
import { IssuingError } from "../identity/issuer.ts";
import { provenKey, signLeaf } from "../identity/leaf.ts";
import { openssl } from "../identity/openssl_command.ts";
import { encodePem } from "../identity/pem.ts";
import { verifyIssued } from "../identity/verify_issued.ts";
import { type ClusterCa, expiryOf, openCa, readCa } from "./ca.ts";
import { expired, make, secretOf, traditional } from "./made_cas.ts";

const EC = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=x";
const P384 = "-newkey ec -pkeyopt ec_paramgen_curve:P-384 -subj /CN=x";
const P521 = "-newkey ec -pkeyopt ec_paramgen_curve:P-521 -subj /CN=x";
const CA = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";

Deno.test("signers that start at once make one CA and read the same", async () => {
  await using cluster = await SigningCluster.open();
  const open = async () => openCa(await cluster.api("signer"), "kube-gateway", "cluster.local");
  const cas = await Promise.all(Array.from({ length: 6 }, open));
  const serials = new Set(cas.map(({ certificate }) => certificate.serialNumber));
  strictEqual(serials.size, 1);
  const creates = await cluster.server.requests({ verb: "create" });
  ok(creates.length >= 2, "they raced");
  strictEqual(creates.filter(({ status }) => status === 201).length, 1);
  strictEqual((await cluster.server.get<{ type?: string }>(CA_SECRET)).type, "kubernetes.io/tls");
  ok(serials.has((await open()).certificate.serialNumber));
});

Deno.test("a CA of one's own is taken in the forms in which tools write it, and peers accept what it signs", async () => {
  await withDirectory(async (directory) => {
    const root = await make(directory, "root", `${EC} ${CA}`);
    const signed = `-subj /CN=below -CA ${directory}/root.crt -CAkey ${directory}/root.key`;
    const below = await make(directory, "below", `${EC} ${CA} ${signed}`);
    const p384 = await make(directory, "p384", `${P384} ${CA}`);
    const rsa = await make(directory, "rsa", `-newkey rsa:2048 -subj /CN=x ${CA}`);
    const id = "-addext subjectAltName=URI:spiffe://cluster.local";
    const named = await make(directory, "named", `${EC} ${CA} ${id}`);
    for (
      const [name, secret] of [
        ["P-256", root],
        ["P-384", p384],
        ["RSA", rsa],
        ["SEC1", { ...root, key: await traditional(root.key) }],
        ["PKCS#1", { ...rsa, key: await traditional(rsa.key) }],
        ["with our trust domain's ID", named],
        ["an intermediate", below],
        ["an intermediate, its root after it", {
          ...below,
          certificate: below.certificate + root.certificate,
        }],
        ["an intermediate, its root in ca.crt", { ...below, root: root.certificate }],
      ] as const
    ) {
      await requireGood(await readCa(secretOf(secret), "cluster.local"), name);
    }
  });
});

Deno.test("a CA that cannot be one is refused with what is wrong, and without its key", async () => {
  await withDirectory(async (directory) => {
    const good = await make(directory, "good", `${EC} ${CA}`);
    const other = await make(directory, "other", `${EC} ${CA}`);
    const from = async (name: string, args: string) => secretOf(await make(directory, name, args));
    const garbage = good.certificate.replace("MII", "AII");
    const notCa = "-addext basicConstraints=critical,CA:FALSE";
    const noUsage = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=digitalSignature";
    const evil = "-addext subjectAltName=URI:spiffe://evil";
    const cases: [string, unknown, RegExp][] = [
      ["no Secret", {}, /no Secret of type kubernetes.io\/tls/],
      ["other type", secretOf(good, "Opaque"), /no Secret of type/],
      ["no certificate", secretOf({ ...good, certificate: "" }), /holds no certificate/],
      ["garbage", secretOf({ ...good, certificate: garbage }), /cannot be read/],
      ["no key", secretOf({ ...good, key: "" }), /tls.key is no private key/],
      ["another's key", secretOf({ ...good, key: other.key }), /not the key of tls.crt/],
      ["a leaf", await from("leaf", `${EC} ${notCa}`), /peers would refuse.*invalid CA/],
      ["no keyCertSign", await from("usage", `${EC} ${noUsage}`), /peers would refuse.*invalid CA/],
      ["expired", secretOf(await expired()), /expired on/],
      ["weak", await from("weak", `-newkey rsa:1024 -subj /CN=x ${CA}`), /not P-256, P-384 or RSA/],
      ["P-521", await from("p521", `${P521} ${CA}`), /not P-256|cannot be read/],
      ["other trust domain", await from("td", `${EC} ${CA} ${evil}`), /trust domain is "spiffe:/],
    ];
    for (const [name, secret, message] of cases) {
      await rejects(readCa(secret, "cluster.local"), (error: unknown) => {
        ok(error instanceof IssuingError && error.reason === "ca_unusable", `${name}: ${error}`);
        match(error.message, message, name);
        ok(!Deno.inspect(error).includes("PRIVATE"));
        return true;
      });
    }
  });
});

async function requireGood(ca: ClusterCa, name: string): Promise<void> {
  const { csr, publicKey } = await newKeyAndRequest();
  const pod = {
    uid: "u",
    namespace: "shop",
    name: "web",
    serviceAccount: "web",
    addresses: ["10.1.0.5"],
  };
  const trustDomain = "cluster.local";
  const key = await provenKey(x509, csr);
  const { chain } = await signLeaf(x509, ca, key, pod, { trustDomain, ttlSeconds: 60 });
  const copies = chain.map((der) => new Uint8Array(der));
  const issued = verifyIssued(copies, { pod, publicKey, trustDomain, roots: [ca.root] });
  strictEqual(issued.chain.length, 1, name);
  await withDirectory(async (directory) => {
    await Deno.writeTextFile(`${directory}/leaf`, encodePem(copies.slice(0, 1), "CERTIFICATE"));
    await Deno.writeTextFile(`${directory}/root`, encodePem([ca.root], "CERTIFICATE"));
    const { text } = await openssl([
      ...["verify", "-CAfile", `${directory}/root`, "-partial_chain", "-x509_strict"],
      ...["-purpose", "sslserver", `${directory}/leaf`],
    ]);
    match(text, /: OK/, `${name}: ${text}`);
  });
}

async function withDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await use(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("that a CA ends is said before it has, two weeks or a tenth of its life", () => {
  const day = 86_400_000;
  const lives = (days: number) => ({ notBefore: new Date(0), notAfter: new Date(days * day) });
  const at = (days: number, now: number) => expiryOf(lives(days), new Date(now * day));
  strictEqual(at(365, 350), undefined);
  match(at(365, 351) ?? "", /expires on 1971-01-01T.*: replace it/);
  match(at(365, 365) ?? "", /expired on 1971-01-01T/);
  strictEqual(at(10, 8.9), undefined);
  match(at(10, 9) ?? "", /expires/);
});
