import type { LeafFacts } from "../leaf_facts.ts";
import { libcrypto } from "./libcrypto.ts";
import { notNull, OpenSslError, succeeded } from "./openssl_error.ts";

/** A certificate as OpenSSL parsed it from its DER. */
export class Certificate implements Disposable {
  /** Takes over `pointer`, an X509 reference. */
  constructor(readonly pointer: Deno.PointerObject) {}

  /** Throws an OpenSslError when `der` is not one whole certificate, and nothing else. */
  static parse(der: Uint8Array<ArrayBuffer>): Certificate {
    // d2i_X509 advances the pointer it is given: an unsigned char *, which the certificate must
    // outlive only during the call.
    const start = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(der)));
    const cursor = new BigUint64Array([start]);
    const pointer = libcrypto.d2i_X509(null, new Uint8Array(cursor.buffer), BigInt(der.length));
    const about = "parsing a certificate";
    const certificate = new Certificate(notNull(pointer, "d2i_X509", about));
    if (cursor[0] === start + BigInt(der.length)) return certificate;
    certificate[Symbol.dispose]();
    throw new OpenSslError("d2i_X509", ["bytes after its end"], about);
  }

  /** What SPIFFE's rules are about (identity/verify.ts decides), read from parsed DER only. */
  leafFacts(): LeafFacts {
    const flags = libcrypto.X509_get_extension_flags(this.pointer);
    if ((flags & EXFLAG_INVALID) !== 0) {
      throw new OpenSslError(
        "X509_get_extension_flags",
        ["invalid extensions"],
        "peer certificate",
      );
    }
    const names = this.#subjectAltNames();
    return {
      uriSans: names.uris,
      ipSans: names.addresses,
      sanCritical: names.critical,
      directoryAttributes: this.#extension(NID_DIRECTORY_ATTRIBUTES),
      hasBasicConstraints: (flags & EXFLAG_BCONS) !== 0,
      isCa: (flags & EXFLAG_CA) !== 0,
      keyUsage: (flags & EXFLAG_KUSAGE) === 0
        ? undefined
        : libcrypto.X509_get_key_usage(this.pointer),
      keyUsageCritical: this.#isCritical(NID_KEY_USAGE),
      extendedKeyUsage: (flags & EXFLAG_XKUSAGE) === 0
        ? undefined
        : libcrypto.X509_get_extended_key_usage(this.pointer),
      subjectEmpty: libcrypto.X509_NAME_entry_count(
        libcrypto.X509_get_subject_name(this.pointer),
      ) === 0,
    };
  }

  /** Lower-case hexadecimal, without leading zeros. */
  serial(): string {
    const bytes = stringBytes(libcrypto.X509_get0_serialNumber(this.pointer));
    return bytes.toHex().replace(/^0+(?=.)/, "");
  }

  /** Its SHA-256, hexadecimal. */
  digest(): string {
    return digestOf(this.pointer);
  }

  /** Seconds until it expires. */
  secondsLeft(): number {
    return secondsLeft(this.pointer);
  }

  [Symbol.dispose](): void {
    libcrypto.X509_free(this.pointer);
  }

  #isCritical(nid: number): boolean {
    const index = libcrypto.X509_get_ext_by_NID(this.pointer, nid, -1);
    if (index < 0) return false;
    return libcrypto.X509_EXTENSION_get_critical(libcrypto.X509_get_ext(this.pointer, index)) === 1;
  }

  /** The first one: a peer's chain was signed by one who writes just one. */
  #extension(nid: number): Uint8Array | undefined {
    const index = libcrypto.X509_get_ext_by_NID(this.pointer, nid, -1);
    if (index < 0) return undefined;
    const extension = libcrypto.X509_get_ext(this.pointer, index);
    return stringBytes(libcrypto.X509_EXTENSION_get_data(extension));
  }

  #subjectAltNames(): { uris: Uint8Array[]; addresses: Uint8Array[]; critical: boolean } {
    const critical = new Int32Array(1);
    const names = libcrypto.X509_get_ext_d2i(
      this.pointer,
      NID_SUBJECT_ALT_NAME,
      new Uint8Array(critical.buffer),
      null,
    );
    const found = { uris: [], addresses: [], critical: critical[0] === 1 } as {
      uris: Uint8Array[];
      addresses: Uint8Array[];
      critical: boolean;
    };
    if (names === null) {
      if (critical[0] === -1) return found; // absent
      throw new OpenSslError(
        "X509_get_ext_d2i",
        ["malformed or repeated subjectAltName"],
        "peer certificate",
      );
    }
    try {
      const type = new Int32Array(1);
      const typeBytes = new Uint8Array(type.buffer);
      const count = libcrypto.OPENSSL_sk_num(names);
      for (let index = 0; index < count; index++) {
        const value = libcrypto.GENERAL_NAME_get0_value(
          libcrypto.OPENSSL_sk_value(names, index),
          typeBytes,
        );
        if (type[0] === GEN_URI) found.uris.push(stringBytes(value));
        if (type[0] === GEN_IPADD) found.addresses.push(stringBytes(value));
      }
    } finally {
      libcrypto.GENERAL_NAMES_free(names);
    }
    return found;
  }
}

/** A certificate's SHA-256, hexadecimal. Throws an OpenSslError. */
export function digestOf(certificate: Deno.PointerObject): string {
  const result = libcrypto.X509_digest(certificate, libcrypto.EVP_sha256(), digest, digestLength);
  succeeded(result, "X509_digest", "certificate");
  return digest.toHex();
}

const digest = new Uint8Array(32);
const digestLength = new Uint8Array(4);

/** Seconds until a certificate expires. Throws an OpenSslError when its dates are malformed. */
export function secondsLeft(certificate: Deno.PointerObject): number {
  const notAfter = libcrypto.X509_get0_notAfter(certificate);
  if (libcrypto.ASN1_TIME_diff(daysBytes, secondsBytes, null, notAfter) !== 1) {
    throw new OpenSslError("ASN1_TIME_diff", ["malformed time"], "certificate");
  }
  return (days[0] ?? 0) * 86_400 + (seconds[0] ?? 0);
}

const days = new Int32Array(1);
const daysBytes = new Uint8Array(days.buffer);
const seconds = new Int32Array(1);
const secondsBytes = new Uint8Array(seconds.buffer);

/** A copy of an ASN1_STRING's bytes. */
function stringBytes(value: Deno.PointerValue): Uint8Array {
  const length = libcrypto.ASN1_STRING_length(value);
  const data = libcrypto.ASN1_STRING_get0_data(value);
  if (data === null || length <= 0) return new Uint8Array(0);
  // SAFETY: `data` has `length` bytes for as long as the names live; the copy is made at once.
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(data, length)).slice();
}

// openssl/x509v3.h, openssl/obj_mac.h
const EXFLAG_BCONS = 0x1;
const EXFLAG_KUSAGE = 0x2;
const EXFLAG_XKUSAGE = 0x4;
const EXFLAG_CA = 0x10;
const EXFLAG_INVALID = 0x80;
const NID_KEY_USAGE = 83;
const NID_SUBJECT_ALT_NAME = 85;
const NID_DIRECTORY_ATTRIBUTES = 769;
const GEN_URI = 6;
const GEN_IPADD = 7;
