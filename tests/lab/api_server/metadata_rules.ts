/**
 * What the API server refuses of an object's metadata. The rules are those of
 * k8s.io/apimachinery/pkg/api/validation (objectmeta.go, generic.go) and pkg/util/validation;
 * functions have their names there.
 */
import { isFields, listAt, type Metadata } from "./objects.ts";
import type { Resource } from "./resources.ts";

/** A field, and what is wrong with it. */
export interface Violation {
  readonly field: string;
  readonly why: string;
}

/** ValidateObjectMeta; for a change of `old` also ValidateObjectMetaUpdate. */
export function metadataViolations(
  resource: Resource,
  metadata: Metadata,
  old?: Metadata,
): Violation[] {
  const { name, generateName = "", namespace = "", finalizers = [] } = metadata;
  const nameRule = nameRuleOf(resource);
  return [
    ...(generateName === "" || old !== undefined
      ? []
      : about("generateName", generateName, nameRule(maskTrailingDash(generateName)))),
    ...(name === ""
      ? [{ field: "metadata.name", why: "Required value: name or generateName is required" }]
      : about("name", name, nameRule(name))),
    ...(resource.namespaced ? about("namespace", namespace, isDNS1123Label(namespace)) : []),
    ...labelViolations(metadata.labels ?? {}),
    ...annotationViolations(metadata.annotations ?? {}),
    ...ownerViolations(listAt(metadata, "ownerReferences")),
    ...finalizers.flatMap((one) => about("finalizers", one, isQualifiedName(one))),
    ...(finalizers.includes("orphan") && finalizers.includes("foregroundDeletion")
      ? about("finalizers", "orphan", "orphan and foregroundDeletion cannot be both set")
      : []),
    ...(old?.deletionTimestamp === undefined ? [] : newFinalizers(finalizers, old)),
  ];
}

/** What a generated name begins with. names/generate.go: a name has at most 63 characters. */
export function generatedNameBase(generateName: string): string {
  return generateName.slice(0, 63 - 5);
}

/** Why the text is none, or undefined. */
export function isQualifiedName(text: string): string | undefined {
  const [name = "", prefix, ...more] = text.split("/").reverse();
  if (more.length > 0) return "a qualified name has at most one '/'";
  if (prefix === "") return "prefix part must be non-empty";
  if (prefix !== undefined && isDNS1123Subdomain(prefix) !== undefined) {
    return `prefix part ${isDNS1123Subdomain(prefix)}`;
  }
  if (name === "") return "name part must be non-empty";
  if (name.length > 63) return "name part must be no more than 63 characters";
  return QUALIFIED.test(name)
    ? undefined
    : "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end " +
      "with an alphanumeric character";
}

export function isDNS1123Subdomain(text: string): string | undefined {
  if (text.length > 253) return "must be no more than 253 characters";
  return SUBDOMAIN.test(text)
    ? undefined
    : "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or " +
      "'.', and must start and end with an alphanumeric character";
}

export function isDNS1123Label(text: string): string | undefined {
  if (text.length > 63) return "must be no more than 63 characters";
  return /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(text)
    ? undefined
    : "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and " +
      "must start and end with an alphanumeric character";
}

function isDNS1035Label(text: string): string | undefined {
  if (text.length > 63) return "must be no more than 63 characters";
  return /^[a-z]([-a-z0-9]*[a-z0-9])?$/.test(text)
    ? undefined
    : "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an " +
      "alphabetic character, and end with an alphanumeric character";
}

/** path.IsValidPathSegmentName, which RBAC's objects are named by. */
function isPathSegmentName(text: string): string | undefined {
  if (text === "." || text === "..") return `may not be '${text}'`;
  return /[/%]/.test(text) ? "may not contain '/' or '%'" : undefined;
}

function nameRuleOf({ group, plural }: Resource): (name: string) => string | undefined {
  if (group === "rbac.authorization.k8s.io") return isPathSegmentName;
  if (group === "" && plural === "namespaces") return isDNS1123Label;
  return group === "" && plural === "services" ? isDNS1035Label : isDNS1123Subdomain;
}

/** Of a name's beginning only a trailing "-" is forgiven. */
function maskTrailingDash(text: string): string {
  return text.length > 1 && text.endsWith("-") ? `${text.slice(0, -2)}a` : text;
}

function labelViolations(labels: Record<string, unknown>): Violation[] {
  return Object.entries(labels).flatMap(([key, value]) => [
    ...about("labels", key, isQualifiedName(key)),
    ...about("labels", String(value), isLabelValue(value)),
  ]);
}

function isLabelValue(value: unknown): string | undefined {
  if (typeof value !== "string") return "must be a string";
  if (value.length > 63) return "must be no more than 63 characters";
  return value === "" || QUALIFIED.test(value)
    ? undefined
    : "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or " +
      "'.', and must start and end with an alphanumeric character";
}

function annotationViolations(annotations: Record<string, unknown>): Violation[] {
  const size = Object.entries(annotations)
    .reduce((sum, [key, value]) => sum + bytesOf(key) + bytesOf(String(value)), 0);
  return [
    ...Object.entries(annotations).flatMap(([key, value]) => [
      ...about("annotations", key, isQualifiedName(key.toLowerCase())),
      ...(typeof value === "string" ? [] : about("annotations", key, "must be a string")),
    ]),
    ...(size <= MAX_ANNOTATIONS ? [] : [{
      field: "metadata.annotations",
      why: `Too long: may not be more than ${MAX_ANNOTATIONS} bytes`,
    }]),
  ];
}

function ownerViolations(owners: readonly unknown[]): Violation[] {
  const fields = owners.map((owner) => isFields(owner) ? owner : {});
  const controllers = fields.filter(({ controller }) => controller === true).length;
  return [
    ...fields.flatMap((owner) =>
      ["apiVersion", "kind", "name", "uid"].flatMap((name) =>
        typeof owner[name] === "string" && owner[name] !== ""
          ? []
          : about(`ownerReferences.${name}`, String(owner[name] ?? ""), "must not be empty")
      )
    ),
    ...fields.flatMap(({ apiVersion, kind }) =>
      apiVersion === "v1" && kind === "Event"
        ? about("ownerReferences", kind, "is disallowed from being an owner")
        : []
    ),
    ...(controllers > 1
      ? about("ownerReferences", "", "Only one reference can have Controller set to true")
      : []),
  ];
}

/** ValidateNoNewFinalizers: whoever is going takes on no more. */
function newFinalizers(
  finalizers: readonly string[],
  { finalizers: old = [] }: Metadata,
): Violation[] {
  return finalizers.filter((one) => !old.includes(one)).map((one) => ({
    field: "metadata.finalizers",
    why: "Forbidden: no new finalizers can be added if the object is being deleted, found new " +
      `finalizers [${one}]`,
  }));
}

function about(field: string, value: string, why: string | undefined): Violation[] {
  return why === undefined
    ? []
    : [{ field: `metadata.${field}`, why: `Invalid value: "${value.slice(0, 300)}": ${why}` }];
}

function bytesOf(text: string): number {
  return new TextEncoder().encode(text).length;
}

const QUALIFIED = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/;
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

/** TotalAnnotationSizeLimitB */
const MAX_ANNOTATIONS = 256 * 1024;
