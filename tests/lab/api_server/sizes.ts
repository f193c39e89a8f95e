import type { KubeObject } from "./objects.ts";
import { StatusError } from "./status.ts";

/**
 * The body of a request.
 *
 * @throws {StatusError} 413 when it is larger than a real API server takes (MaxRequestBodyBytes, by
 * default).
 */
export async function boundedText(request: Request): Promise<string> {
  const bytes = await request.bytes();
  if (bytes.length <= MAX_BODY_BYTES) return new TextDecoder().decode(bytes);
  const message = `Request entity too large: limit is ${MAX_BODY_BYTES}`;
  throw new StatusError(413, "RequestEntityTooLarge", message);
}

/** @throws {StatusError} 500, in etcd's words, for an object that etcd does not take by default. */
export function requireStorable(object: KubeObject): void {
  if (storedBytes(object) <= MAX_STORED_BYTES) return;
  throw new StatusError(500, "", "etcdserver: request is too large");
}

/**
 * About what etcd holds of an object, which is no JSON: texts are not escaped there, and bytes are
 * no base64. What surrounds them hardly counts in an object that is too large.
 */
function storedBytes(value: unknown): number {
  if (typeof value === "string") return new TextEncoder().encode(value).length + TAG_BYTES;
  if (typeof value !== "object" || value === null) return TAG_BYTES;
  let sum = TAG_BYTES;
  for (const [key, one] of Object.entries(value)) {
    const isBase64 = typeof one === "string" && BASE64_FIELDS.includes(key);
    sum += isBase64 ? one.length * 3 / 4 : storedBytes(one);
  }
  return sum;
}

const MAX_BODY_BYTES = 3 * 2 ** 20;
const MAX_STORED_BYTES = 1.5 * 2 ** 20;

/** A field's number and its length. */
const TAG_BYTES = 2;

/** Of CertificateSigningRequests. */
const BASE64_FIELDS = ["request", "certificate"];
