/**
 * The UID of a certificate's pod, by which the deny list finds it: the one attribute of the
 * extension subjectDirectoryAttributes (RFC 5280 4.2.1.8), a userId (RFC 4519 2.39). The subject
 * would be the place for it, but a company's CA may be limited to subjects of its own
 * (nameConstraints, directoryName).
 */
import { sameBytes } from "../same.ts";
import { der, sequence } from "./der.ts";

export const DIRECTORY_ATTRIBUTES = "2.5.29.9";

/** The extension's value, DER. @param uid ASCII, of 253 bytes at most. */
export function encodePodUid(uid: string): Uint8Array<ArrayBuffer> {
  const text = der(0x0c, new TextEncoder().encode(uid)); // UTF8String
  return sequence(sequence(USER_ID, der(0x31, text)));
}

/**
 * Undefined for what {@link encodePodUid} has not made: what is meant by other attributes is
 * another issuer's business.
 */
export function decodePodUid(value: Uint8Array): string | undefined {
  for (let headers = FEWEST_HEADERS; headers <= MOST_HEADERS; headers++) {
    const uid = new TextDecoder().decode(value.subarray(headers));
    if (uid !== "" && sameBytes(encodePodUid(uid), value)) return uid;
  }
  return undefined;
}

/** 0.9.2342.19200300.100.1.1 */
const USER_ID = Uint8Array.of(0x06, 10, 0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1);

/** Four elements around the text, each with 2 to 4 bytes of tag and length, and the identifier. */
const FEWEST_HEADERS = 4 * 2 + USER_ID.length;
const MOST_HEADERS = 4 * 4 + USER_ID.length;
