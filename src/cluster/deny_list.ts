import * as v from "valibot";
import { GATEWAY_NAMESPACE } from "../constants.ts";
import { IdentityError } from "../identity/reasons.ts";
import { parseSpiffeId } from "../identity/spiffe.ts";
import { isPodUid, quoted } from "../names.ts";
import { parseObject } from "./parse.ts";

/**
 * Who is not to be trusted any more, although his certificate is good: what a person writes into
 * the ConfigMap {@link DENY_LIST} of the gateway's namespace when a key, a pod or an account has
 * been stolen.
 */
export interface DenyList {
  /** Of certificates, lower-case hexadecimal without leading zeros. */
  readonly serials: ReadonlySet<string>;
  /** SPIFFE IDs. */
  readonly identities: ReadonlySet<string>;
  /** UIDs of pods. */
  readonly pods: ReadonlySet<string>;
  /** What was not understood, and denies nobody. */
  readonly problems: readonly string[];
}

/** The ConfigMap's name. */
export const DENY_LIST = "kube-gateway-deny";

export const NOBODY_DENIED: DenyList = {
  serials: new Set(),
  identities: new Set(),
  pods: new Set(),
  problems: [],
};

/**
 * The list in a ConfigMap: under `serials`, `identities` and `pods`, each one to a line or
 * separated by blanks or commas. Undefined for another ConfigMap. What is wrong costs itself only.
 *
 * @throws {ObjectError} when its data are no texts.
 */
export function readDenyList(
  value: unknown,
  path: readonly (string | number)[] = [],
): DenyList | undefined {
  if (!v.is(NamedSchema, value)) return undefined; // others' ConfigMaps are none of ours to judge
  const { data, binaryData } = parseObject(ConfigMapSchema, value, path);
  const problems = Object.keys(binaryData ?? {})
    .map((key) => `${quoted(key, 80)} is binaryData, which is not read: write it as data`);
  const listed = (key: string, read: (text: string) => string | undefined): Set<string> => {
    const texts = (data?.[key] ?? "").split(/[\s,]+/).filter((text) => text !== "");
    if (texts.length > MOST) {
      problems.push(`${key}: ${texts.length} entries, the first ${MOST} count`);
    }
    return new Set(
      texts.slice(0, MOST).flatMap((text) => {
        const entry = read(text);
        if (entry === undefined) problems.push(`${key}: ${quoted(text, 80)} is none`);
        return entry ?? [];
      }),
    );
  };
  const list = {
    serials: listed("serials", serialOf),
    identities: listed("identities", identityOf),
    pods: listed("pods", podUidOf),
  };
  const unknown = Object.keys(data ?? {}).filter((key) => !(key in list));
  for (const key of unknown) {
    problems.push(`${quoted(key, 80)} is none of serials, identities and pods`);
  }
  return { ...list, problems: problems.slice(0, MOST_PROBLEMS) };
}

/**
 * As `kube-gateway certs` prints it, or with colons and capitals as openssl does; undefined when it
 * is none.
 */
export function serialOf(text: string): string | undefined {
  const digits = text.replaceAll(":", "").toLowerCase();
  return /^[0-9a-f]{1,40}$/.test(digits) ? digits.replace(/^0+(?=.)/, "") : undefined;
}

/** A pod's SPIFFE ID of whatever trust domain, to the letter: another text would deny nobody. */
function identityOf(text: string): string | undefined {
  const trustDomain = /^spiffe:\/\/([^/]+)\//.exec(text)?.[1] ?? "";
  try {
    return parseSpiffeId(new TextEncoder().encode(text), trustDomain).id;
  } catch (error) {
    if (error instanceof IdentityError) return undefined;
    throw error;
  }
}

/**
 * The API server writes UUIDs in lower case; people copy them from elsewhere. A static pod's UID
 * may be any text.
 */
function podUidOf(text: string): string | undefined {
  if (UUID.test(text)) return text.toLowerCase();
  return isPodUid(text) ? text : undefined;
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const NamedSchema = v.object({
  metadata: v.object({ name: v.literal(DENY_LIST), namespace: v.literal(GATEWAY_NAMESPACE) }),
});

const ConfigMapSchema = v.object({
  data: v.nullish(v.record(v.string(), v.string())),
  binaryData: v.nullish(v.record(v.string(), v.unknown())),
});

/** A list, that people write by hand. */
const MOST = 10_000;
const MOST_PROBLEMS = 20;
