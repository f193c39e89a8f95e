/** For tests: certificates that no library writes, byte by byte (X.690, RFC 5280 section 4.1). */
import { Buffer } from "node:buffer";
import { createSign, type KeyObject } from "node:crypto";

export type Der = Uint8Array<ArrayBuffer>;

/** One value: tag, length, contents. */
export function der(tag: number, ...contents: readonly Uint8Array[]): Der {
  const body = Buffer.concat(contents);
  const { length } = body;
  const header = length < 0x80
    ? [tag, length]
    : length < 0x100
    ? [tag, 0x81, length]
    : [tag, 0x82, length >> 8, length & 0xff];
  return Uint8Array.from([...header, ...body]);
}

export function sequence(...members: readonly Uint8Array[]): Der {
  return der(0x30, ...members);
}

export function text(tag: number, value: string): Der {
  return der(tag, Buffer.from(value, "latin1"));
}

/** From its dotted form. */
export function oid(dotted: string): Der {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = [40 * first + second, ...rest].flatMap((arc) => {
    const digits = [arc & 0x7f];
    for (let left = arc >> 7; left > 0; left >>= 7) digits.unshift(0x80 | (left & 0x7f));
    return digits;
  });
  return der(6, Uint8Array.from(bytes));
}

export function integer(...bytes: readonly number[]): Der {
  return der(2, Uint8Array.from(bytes));
}

export function utcTime(date: Date): Der {
  return text(0x17, `${date.toISOString().replace(/^20|[-:T]|\.\d+/g, "")}`);
}

export function commonName(value: string): Der {
  return sequence(der(0x31, sequence(oid("2.5.4.3"), text(0x0c, value))));
}

export function extension(id: string, value: Uint8Array, critical = false): Der {
  const flag = critical ? [der(1, Uint8Array.of(0xff))] : [];
  return sequence(oid(id), ...flag, der(4, value));
}

export const ECDSA_SHA256 = "1.2.840.10045.4.3.2";
export const ECDSA_SHA1 = "1.2.840.10045.4.1";

/** What is in a certificate, in the order in which it stands there. */
export interface Parts {
  /** 2 for version 3; undefined leaves the field out, which means 1. */
  readonly version: number | undefined;
  readonly serial: Der;
  readonly algorithm: string;
  readonly issuer: Der;
  readonly notBefore: Der;
  readonly notAfter: Der;
  readonly subject: Der;
  /** SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array;
  readonly extensions: readonly Der[];
}

/** The certificate, signed as `outer` (or its own algorithm) says. */
export function certificate(parts: Parts, key: KeyObject, outer = parts.algorithm): Der {
  const { version, serial, algorithm, issuer, notBefore, notAfter, subject, publicKey } = parts;
  const signed = sequence(
    ...version === undefined ? [] : [der(0xa0, integer(version))],
    serial,
    sequence(oid(algorithm)),
    issuer,
    sequence(notBefore, notAfter),
    subject,
    publicKey,
    ...parts.extensions.length === 0 ? [] : [der(0xa3, sequence(...parts.extensions))],
  );
  const hash = outer === ECDSA_SHA1 ? "sha1" : "sha256";
  const signature = createSign(hash).update(signed).sign(key);
  return sequence(signed, sequence(oid(outer)), der(3, Uint8Array.of(0), signature));
}
