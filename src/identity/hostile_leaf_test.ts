/**
 * The promise: a certificate that is not a pod's, as every pod's is, is refused with a reason,
 * whichever side of a handshake shows it. Each kind is written byte by byte, signed by the CA that
 * both trust where that is not the point, and shown in both roles.
 */
import { match, throws } from "node:assert/strict";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { Certificate } from "../native/certificate.ts";
import { shakeHands, Side } from "../native/memory_handshake_for_tests.ts";
import { OpenSslError } from "../native/openssl_error.ts";
import { AlpnProtocol, type Credentials, TlsContext } from "../native/tls_context.ts";
import { TlsEngine, type TlsSession } from "../native/tls_session.ts";
import {
  certificate,
  commonName,
  type Der,
  der,
  ECDSA_SHA1,
  ECDSA_SHA256,
  extension,
  integer,
  oid,
  type Parts,
  sequence,
  text,
  utcTime,
} from "./der_for_tests.ts";
import { identityOfLeaf, requireServer } from "./verify.ts";

const ID = "spiffe://cluster.local/ns/shop/sa/web";
const ADDRESS = "10.1.0.5";
const day = (days: number) => utcTime(new Date(Date.now() + days * 86_400_000));

const uri = (value: string) => text(0x86, value);
const ip = (...bytes: number[]) => der(0x87, Uint8Array.from(bytes));
const dns = (value: string) => text(0x82, value);

const BASIC = extension("2.5.29.19", sequence(), true);
const IS_CA = extension("2.5.29.19", sequence(der(1, Uint8Array.of(0xff))), true);
const usage = (bits: number) => extension("2.5.29.15", der(3, Uint8Array.of(0, bits)), true);
const SIGNS = usage(0x80);
const extended = (...ids: string[]) => extension("2.5.29.37", sequence(...ids.map(oid)));
const [SERVER, CLIENT, ANY] = ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2", "2.5.29.37.0"];
const BOTH = extended(SERVER, CLIENT);
const names = (...all: Der[]) => extension("2.5.29.17", sequence(...all), true);
const NAMES = names(uri(ID), ip(10, 1, 0, 5));

const ca = keyPair();
const other = keyPair();
const pod = keyPair();

const CA_NAME = commonName("ca");
const ROOT = certificate({
  version: 2,
  serial: integer(1),
  algorithm: ECDSA_SHA256,
  issuer: CA_NAME,
  notBefore: day(-1),
  notAfter: day(1),
  subject: CA_NAME,
  publicKey: ca.spki,
  extensions: [IS_CA, usage(0x04), keyIdentifier(ca)],
}, ca.privateKey);

const GOOD: Parts = {
  version: 2,
  serial: integer(0x55),
  algorithm: ECDSA_SHA256,
  issuer: CA_NAME,
  notBefore: day(-0.5),
  notAfter: day(0.5),
  subject: sequence(),
  publicKey: pod.spki,
  extensions: [BASIC, SIGNS, BOTH, NAMES, keyIdentifier(pod), authority(ca)],
};

const leaf = (parts: Partial<Parts>) => certificate({ ...GOOD, ...parts }, ca.privateKey);
type Changes = Readonly<Record<number, Der | undefined>>;
const extensions = (changes: Changes) =>
  GOOD.extensions.flatMap((each, index) => index in changes ? changes[index] ?? [] : each);
/**
 * With other extensions in the place of those at 0 (constraints), 1 (usage), 2 (extended usage), 3
 * (names).
 */
const leafWith = (changes: Changes, ...more: Der[]) =>
  leaf({ extensions: [...extensions(changes), ...more] });
const named = (...all: Der[]) => leafWith({ 3: names(...all) });

/** What is shown, and what the other side says of it. */
const KINDS: Record<string, readonly [chain: Der | readonly Der[], said: RegExp]> = {
  "a pod's": [leaf({}), /^taken$/],
  "the same with a name and a DNS name beside": [
    certificate({ ...GOOD, subject: commonName("web") }, ca.privateKey),
    /^taken$/,
  ],
  "expired": [leaf({ notAfter: day(-0.1) }), /has expired/],
  "not valid yet": [leaf({ notBefore: day(0.1) }), /not yet valid/],
  "ends before it begins": [
    leaf({ notBefore: day(0.4), notAfter: day(-0.4) }),
    /not yet valid|expired/,
  ],
  "a month 13": [leaf({ notAfter: text(0x17, "271301000000Z") }), /format error/],
  "a time without seconds": [leaf({ notAfter: text(0x17, "2712010000Z") }), /format error/],
  "a time with an offset": [leaf({ notAfter: text(0x17, "271201000000+0100") }), /format error/],
  "another CA's, of the same name": [certificate(GOOD, other.privateKey), /signature failure/],
  "another CA's, with that beside": [
    [
      certificate({
        ...GOOD,
        issuer: commonName("other"),
        extensions: [...GOOD.extensions.slice(0, 5), authority(other)],
      }, other.privateKey),
      certificate({
        ...GOOD,
        issuer: commonName("other"),
        subject: commonName("other"),
        publicKey: other.spki,
        extensions: [IS_CA, usage(0x04), keyIdentifier(other)],
      }, other.privateKey),
    ],
    /self-signed certificate in certificate chain|unable to get/,
  ],
  "signed by itself": [
    certificate({ ...GOOD, issuer: commonName("web"), subject: commonName("web") }, pod.privateKey),
    /self-signed certificate|unable to get/,
  ],
  "another leaf has signed it": [
    [
      certificate({
        ...GOOD,
        issuer: commonName("leaf"),
        extensions: [...GOOD.extensions.slice(0, 5), authority(other)],
      }, other.privateKey),
      certificate({
        ...GOOD,
        subject: commonName("leaf"),
        publicKey: other.spki,
        extensions: [BASIC, SIGNS, BOTH, NAMES, keyIdentifier(other), authority(ca)],
      }, ca.privateKey),
    ],
    /invalid CA certificate|unsuitable|unable to get/,
  ],
  "one bit of it changed": [flipped(leaf({}), 60), /signature failure|asn1|tag|length/i],
  "one bit of its signature changed": [flipped(leaf({}), -3), /signature failure|asn1/i],
  "signed with SHA-1": [leaf({ algorithm: ECDSA_SHA1 }), /too weak|signature failure/],
  "another algorithm inside than outside": [
    certificate({ ...GOOD, algorithm: ECDSA_SHA1 }, ca.privateKey, ECDSA_SHA256),
    /signature failure|too weak|algorithm/i,
  ],
  "a CA's": [
    leaf({
      subject: commonName("web"),
      extensions: [IS_CA, usage(0x84), ...GOOD.extensions.slice(2)],
    }),
    /ca_as_leaf/,
  ],
  "a leaf's that may sign certificates": [
    leafWith({ 1: usage(0x84) }),
    /signs_certificates|key usage|invalid CA/i,
  ],
  "may sign revocation lists": [
    leaf({ subject: commonName("web"), extensions: extensions({ 1: usage(0x82) }) }),
    /signs_crls/,
  ],
  "may not sign": [leafWith({ 1: usage(0x08) }), /no_digital_signature|unsuitable/],
  "no key usage": [leafWith({ 1: undefined }), /no_key_usage/],
  "no basic constraints": [leafWith({ 0: undefined }), /no_basic_constraints/],
  "for servers only": [leafWith({ 2: extended(SERVER) }), /extended_key_usage|unsuitable/],
  "for clients only": [leafWith({ 2: extended(CLIENT) }), /extended_key_usage|unsuitable/],
  "for anything": [leafWith({ 2: extended(ANY) }), /extended_key_usage|unsuitable/],
  "for code signing too": [
    leafWith({ 2: extended(SERVER, CLIENT, "1.3.6.1.5.5.7.3.3") }),
    /^taken$/,
  ],
  "an unknown critical extension": [
    leafWith({}, extension("1.2.3.4", text(0x0c, "x"), true)),
    /unhandled critical/,
  ],
  "an unknown extension": [leafWith({}, extension("1.2.3.4", text(0x0c, "x"))), /^taken$/],
  // To OpenSSL nobody has issued a certificate with extensions that it cannot read.
  "the same extension twice": [leafWith({}, NAMES), /unable to get local issuer/],
  "names that are no names": [
    leafWith({ 3: extension("2.5.29.17", text(0x0c, "x"), true) }),
    /unable to get local issuer/,
  ],
  "no names": [leafWith({ 3: undefined }), /empty|no_uri_san/],
  "no SPIFFE ID": [named(dns("web.shop"), ip(10, 1, 0, 5)), /no_uri_san/],
  "two SPIFFE IDs": [
    named(uri(ID), uri("spiffe://cluster.local/ns/bank/sa/vault")),
    /two_uri_sans/,
  ],
  "a URL beside the SPIFFE ID": [named(uri(ID), uri("https://x.example")), /two_uri_sans/],
  "a SPIFFE ID with a NUL": [named(uri(`${ID}\0.evil`)), /id_bad_byte/],
  "a NUL before the rest of another's": [
    named(uri("spiffe://cluster.local/ns/bank/sa/vault\0/../web")),
    /id_bad_byte/,
  ],
  "another trust domain's": [named(uri("spiffe://other.local/ns/shop/sa/web")), /id_trust_domain/],
  "a trust domain that begins as ours": [
    named(uri("spiffe://cluster.local.evil/ns/shop/sa/web")),
    /id_trust_domain/,
  ],
  "a trust domain's own ID": [named(uri("spiffe://cluster.local")), /id_path/],
  "upper case": [named(uri("SPIFFE://cluster.local/ns/shop/sa/web")), /id_/],
  "percent-encoding": [named(uri("spiffe://cluster.local/ns/shop/sa/%77eb")), /id_/],
  "a path that goes up": [named(uri("spiffe://cluster.local/ns/bank/../shop/sa/web")), /id_/],
  "a query": [named(uri(`${ID}?x`)), /id_/],
  "a port": [named(uri("spiffe://cluster.local:443/ns/shop/sa/web")), /id_/],
  "a byte above ASCII": [named(uri(`${ID}\xe9`)), /id_bad_byte/],
  "another pod's address": [named(uri(ID), ip(10, 1, 0, 6)), /address_mismatch/],
  "no address": [named(uri(ID)), /address_mismatch/],
  "an address with a mask": [named(uri(ID), ip(10, 1, 0, 5, 255, 255, 255, 255)), /bad_ip_san/],
  "an address in text": [named(uri(ID), dns(ADDRESS)), /address_mismatch/],
  "another service account's": [
    named(uri("spiffe://cluster.local/ns/shop/sa/api"), ip(10, 1, 0, 5)),
    /identity_mismatch/,
  ],
  "the serial number 0": [leaf({ serial: integer(0) }), /^taken$/],
  "a negative serial number": [leaf({ serial: integer(0x80, 1) }), /^taken$/],
  "a serial number of 40 bytes": [leaf({ serial: integer(1, ...Array(39).fill(7)) }), /^taken$/],
  "of version 1, with extensions": [leaf({ version: undefined }), /requires at least X509v3/],
  "of version 2, with extensions": [leaf({ version: 1 }), /requires at least X509v3/],
  "a hundred certificates behind it": [[leaf({}), ...Array(100).fill(ROOT)], /^taken$/],
  "a hundred CAs between it and the root": [ladder(100), /too long|unable to get/],
};

for (const [kind, [shown, said]] of Object.entries(KINDS)) {
  Deno.test(`a certificate: ${kind}`, () => {
    const chain: readonly Der[] = shown instanceof Uint8Array ? [shown] : shown;
    for (const role of ["client", "server"] as const) {
      const told = handshake(role, chain);
      match(told, said, `${role}: ${told}`);
    }
  });
}

Deno.test("what is no DER is no certificate", () => {
  const good = leaf({});
  const [, , ...rest] = good;
  for (
    const [kind, bytes] of [
      ["cut off", good.slice(0, -1)],
      ["empty", new Uint8Array()],
      ["a length that never ends", Uint8Array.from([0x30, 0x80, ...rest])],
      ["another tag", Uint8Array.from([0x31, ...good.slice(1)])],
      ["something behind it", Uint8Array.from([...good, 0])],
    ] as const
  ) {
    throws(() => Certificate.parse(bytes), OpenSslError, kind);
  }
});

/** What one side says of the certificates that the other shows in this role. */
function handshake(role: "client" | "server", chain: readonly Der[]): string {
  using protocol = new AlpnProtocol("test/1");
  const shown = contextOf(chain, protocol);
  if (!(shown instanceof TlsContext)) return `cannot be shown: ${shown.message}`;
  using showing = shown;
  using judging = new TlsContext(podCredentials([leaf({})]), protocol);
  const side = (context: TlsContext, as: "client" | "server") => {
    const engine = new TlsEngine(protocol);
    return new Side(engine, engine.session(context, as));
  };
  const client = side(role === "client" ? showing : judging, "client");
  const server = side(role === "server" ? showing : judging, "server");
  try {
    shakeHands(client, server);
    judge(role === "client" ? server.session : client.session);
    return "taken";
  } catch (error) {
    return `${(error as { reason?: string }).reason ?? ""} ${(error as Error).message}`;
  } finally {
    for (const { session } of [client, server]) session[Symbol.dispose]();
  }
}

/**
 * OpenSSL looks at what it is to show as it looks at what it is shown: what it does not load, no
 * peer of ours would.
 */
function contextOf(chain: readonly Der[], protocol: AlpnProtocol): TlsContext | OpenSslError {
  try {
    return new TlsContext(podCredentials(chain), protocol);
  } catch (error) {
    if (error instanceof OpenSslError) return error;
    throw error;
  }
}

/** As a relay does after the handshake. */
function judge(session: TlsSession): void {
  using leaf = session.peerCertificate();
  requireServer(identityOfLeaf(leaf.leafFacts(), "cluster.local"), { address: ADDRESS, id: ID });
}

function podCredentials(chain: readonly Der[]): Credentials {
  const privateKey = new Uint8Array(pod.privateKey.export({ type: "pkcs8", format: "der" }));
  return { chain, privateKey, roots: [ROOT] };
}

interface Pair {
  readonly privateKey: KeyObject;
  readonly spki: Uint8Array;
}

function keyPair(): Pair {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return { privateKey, spki: new Uint8Array(publicKey.export({ type: "spki", format: "der" })) };
}

/** Any bytes that are the key's own. */
function identifierOf({ spki }: Pair): Uint8Array {
  return spki.slice(-20);
}

function keyIdentifier(pair: Pair): Der {
  return extension("2.5.29.14", der(4, identifierOf(pair)));
}

function authority(pair: Pair): Der {
  return extension("2.5.29.35", sequence(der(0x80, identifierOf(pair))));
}

/** With one bit of the byte at `index` changed, counted from the end when negative. */
function flipped(bytes: Der, index: number): Der {
  const copy = bytes.slice();
  const at = index < 0 ? copy.length + index : index;
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}

/** A pod's certificate, and so many CAs, each signed by the next, the last by the root. */
function ladder(length: number): Der[] {
  const level = (index: number) => commonName(`level ${index}`);
  const leaf = certificate({
    ...GOOD,
    issuer: level(0),
    extensions: [...GOOD.extensions.slice(0, 5), authority(other)],
  }, other.privateKey);
  const cas = Array.from({ length }, (_, index) => {
    const isLast = index === length - 1;
    const signer = isLast ? ca : other;
    return certificate({
      ...GOOD,
      issuer: isLast ? CA_NAME : level(index + 1),
      subject: level(index),
      publicKey: other.spki,
      extensions: [IS_CA, usage(0x04), keyIdentifier(other), authority(signer)],
    }, signer.privateKey);
  });
  return [leaf, ...cas];
}
