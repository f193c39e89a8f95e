import { isDnsLabel, isDnsSubdomain, quoted } from "../names.ts";
import { IdentityError } from "./reasons.ts";

/** What a pod's SPIFFE ID says. `id` is the whole text. */
export interface SpiffeIdentity {
  readonly id: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/**
 * The SPIFFE ID of a service account: `spiffe://<trust domain>/ns/<namespace>/sa/<service
 * account>`.
 *
 * @throws {TypeError} when a part is not a valid name, so that no part can add a path segment.
 *
 * @example
 * ```ts
 * import { strictEqual } from "node:assert/strict";
 *
 * strictEqual(spiffeId("cluster.local", "shop", "web"), "spiffe://cluster.local/ns/shop/sa/web");
 * ```
 */
export function spiffeId(trustDomain: string, namespace: string, serviceAccount: string): string {
  if (!validTrustDomain(trustDomain)) {
    throw new TypeError(`Cannot make a SPIFFE ID: ${quoted(trustDomain)} is no trust domain`);
  }
  if (!isDnsLabel(namespace)) {
    throw new TypeError(`Cannot make a SPIFFE ID: ${quoted(namespace)} is no namespace name`);
  }
  if (!isDnsSubdomain(serviceAccount)) {
    throw new TypeError(
      `Cannot make a SPIFFE ID: ${quoted(serviceAccount)} is no service account name`,
    );
  }
  return `${SCHEME}${trustDomain}/ns/${namespace}/sa/${serviceAccount}`;
}

/**
 * Reads a pod's SPIFFE ID from the bytes of a URI SAN (or of the registry's text). Accepts exactly
 * what `spiffeId` writes and nothing that merely means the same: no upper case, port, user, query,
 * fragment, percent-encoding or NUL (SPIFFE-ID 2, X509-SVID 2).
 *
 * @throws {IdentityError} with an `id_…` reason.
 */
export function parseSpiffeId(bytes: Uint8Array, trustDomain: string): SpiffeIdentity {
  if (bytes.length > MAX_ID_BYTES) throw new IdentityError("id_too_long", `${bytes.length} bytes`);
  // The bytes are judged before they become text: what decodes or compares differently never gets
  // that far.
  const at = bytes.findIndex((byte) => !ALLOWED.has(byte));
  const id = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  if (at !== -1) throw new IdentityError("id_bad_byte", quoted(id));
  if (!id.startsWith(SCHEME)) throw new IdentityError("id_scheme", quoted(id));

  const [authority = "", ...path] = id.slice(SCHEME.length).split("/");
  if (!validTrustDomain(trustDomain) || authority !== trustDomain) {
    throw new IdentityError("id_trust_domain", `${quoted(authority)}, not ${quoted(trustDomain)}`);
  }
  const [ns, namespace = "", sa, serviceAccount = ""] = path;
  if (path.length !== 4 || ns !== "ns" || sa !== "sa") {
    throw new IdentityError("id_path", quoted(id));
  }
  if (!isDnsLabel(namespace)) throw new IdentityError("id_namespace", quoted(namespace));
  if (!isDnsSubdomain(serviceAccount)) {
    throw new IdentityError("id_service_account", quoted(serviceAccount));
  }
  return { id, namespace, serviceAccount };
}

/** Whether `text` is a SPIFFE trust domain name (SPIFFE-ID 2.1): 1 to 255 of `[a-z0-9._-]`. */
export function validTrustDomain(text: string): boolean {
  return /^[a-z0-9._-]{1,255}$/.test(text);
}

const SCHEME = "spiffe://";

/**
 * SPIFFE-ID 2.3: implementations must support, and must not make longer, IDs of this many bytes.
 */
const MAX_ID_BYTES = 2048;

/**
 * The bytes a SPIFFE ID may consist of. Upper case and others that may stand in some path, but not
 * in ours, pass here so that the reason names what is wrong with them.
 */
const ALLOWED = new Set(
  new TextEncoder().encode(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/",
  ),
);
