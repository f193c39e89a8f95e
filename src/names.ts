/**
 * Kubernetes' rules for names, as the API server applies them. A name that breaks them never came
 * from Kubernetes; checking them here is what lets the rest put names into paths, SPIFFE IDs and
 * logs.
 */

/**
 * Whether `text` is an RFC 1123 label, the form of a namespace: 1 to 63 of `[a-z0-9-]`,
 * alphanumeric at both ends.
 */
export function isDnsLabel(text: string): boolean {
  return text.length <= 63 && LABEL.test(text);
}

/**
 * Whether `text` is an RFC 1123 subdomain, the form of a pod, node or service account name: at most
 * 253 characters, labels joined by dots. As in Kubernetes a single label may be longer than 63.
 */
export function isDnsSubdomain(text: string): boolean {
  return text.length <= 253 && SUBDOMAIN.test(text);
}

/**
 * Whether `text` may be a pod's UID: 1 to 253 of `[A-Za-z0-9_.-]`, and safe as a path component.
 * Usually a UUID, but a static pod's is a hash or whatever its manifest says.
 */
export function isPodUid(text: string): boolean {
  return text.length <= 253 && UID.test(text) && text !== "." && text !== "..";
}

/**
 * The namespace of something that is called `namespace/name`; empty for what has none.
 *
 * @example
 * ```ts
 * import { deepStrictEqual } from "node:assert/strict";
 *
 * deepStrictEqual(["shop/web", "10.0.0.1", "/sys/fs"].map(namespaceOf), ["shop", "", ""]);
 * ```
 */
export function namespaceOf(name: string): string {
  const [namespace = "", ...rest] = name.split("/");
  return rest.length === 1 && isDnsLabel(namespace) ? namespace : "";
}

// One class between two anchors, or alternatives that cannot match the same character: linear time.
const LABEL = /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/;
const UID = /^[A-Za-z0-9_.-]+$/;

/**
 * `text` as it may stand in a log line or an error: quoted, at most `limit` characters of it, and
 * only printable ASCII, so that whoever chose the text cannot forge a line or fill a disk.
 *
 * @example
 * ```ts
 * import { strictEqual } from "node:assert/strict";
 *
 * strictEqual(quoted("web\n"), '"web\\n"');
 * strictEqual(quoted("aaaa", 2), '"aa…"');
 * ```
 */
export function quoted(text: string, limit = 64): string {
  const cut = text.length > limit ? `${text.slice(0, limit)}…` : text;
  return JSON.stringify(cut).replace(
    /[^ -~…]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
