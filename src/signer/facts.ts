/**
 * What the signer keeps of the objects it decides about. Everything here was written by others:
 * texts are bounded, and what is not of the form that Kubernetes gives it is refused when it is
 * read.
 */
import * as v from "valibot";
import { MAX_CSR_BYTES } from "../identity/leaf.ts";
import { decodePem } from "../identity/pem.ts";
import {
  NODE_CLAIM,
  POD_ADDRESSES_ANNOTATION,
  POD_NAME_ANNOTATION,
  POD_NAMESPACE_ANNOTATION,
  POD_UID_ANNOTATION,
  USAGES,
} from "../identity/signing_names.ts";

/**
 * A certificates.k8s.io/v1 CertificateSigningRequest. Nothing here refers to the object that was
 * read, which may have a megabyte and a half: a node may file very many, and they are kept until
 * they have an end.
 */
export interface CsrFacts {
  readonly name: string;
  readonly uid: string;
  /** What is decided is decided about this version. */
  readonly resourceVersion: string;
  readonly createdAt: Date;
  readonly signerName: string;
  /** Filled in by the API server from the requester's credentials, like `extra`; immutable. */
  readonly username: string;
  /** The node's claim only. */
  readonly extra: Readonly<Record<string, readonly string[]>>;
  /** Different ones, and no more than show that one of them is not allowed. */
  readonly usages: readonly string[];
  readonly expirationSeconds: number | undefined;
  /** Those that say which pod it is for; what is too long for that says so instead. */
  readonly annotations: Readonly<Record<string, string>>;
  /** The PKCS#10, DER; empty when there is none in `spec.request`, or that is too long. */
  readonly request: Uint8Array;
  /** Of `spec.request`, in characters of base64. */
  readonly requestLength: number;
  readonly state: "pending" | "approved" | "denied" | "failed" | "issued";
  /** As they were read: a list is written as a whole. */
  readonly conditions: readonly unknown[];
}

/** @throws {v.ValiError} when `value` is no CertificateSigningRequest. */
export function readCsr(value: unknown): CsrFacts {
  const { metadata, spec, status } = v.parse(CsrSchema, value);
  const conditions = (status?.conditions ?? []).map(({ type }) => type);
  return {
    name: metadata.name,
    uid: metadata.uid,
    resourceVersion: metadata.resourceVersion,
    createdAt: new Date(metadata.creationTimestamp),
    signerName: spec.signerName,
    username: spec.username ?? "",
    extra: only(spec.extra ?? {}, [NODE_CLAIM], (claims) => claims.slice(0, 2).map(bounded)),
    usages: [...new Set(spec.usages)].slice(0, USAGES.length + 1),
    expirationSeconds: spec.expirationSeconds,
    annotations: only(metadata.annotations ?? {}, POD_ANNOTATIONS, bounded),
    request: requestOf(spec.request),
    requestLength: spec.request.length,
    state: (status?.certificate ?? "") !== ""
      ? "issued"
      : conditions.includes("Denied")
      ? "denied"
      : conditions.includes("Failed")
      ? "failed"
      : conditions.includes("Approved")
      ? "approved"
      : "pending",
    conditions: status?.conditions ?? [],
  };
}

function only<T>(
  given: Readonly<Record<string, T>>,
  keys: readonly string[],
  read: (value: T) => T,
): Record<string, T> {
  return Object.fromEntries(
    keys.flatMap((key) => {
      const value = Object.hasOwn(given, key) ? given[key] : undefined;
      return value === undefined ? [] : [[key, read(value)]];
    }),
  );
}

/** A part of the text would keep all of it in memory. */
function bounded(text: string): string {
  return text.length <= MAX_TEXT ? text : `(${text.length} characters)`;
}

/**
 * The DER inside base64 of PEM, or nothing: whoever sent something else is told that it is no
 * request.
 */
function requestOf(base64: string): Uint8Array {
  if (base64.length > MAX_REQUEST_LENGTH) return new Uint8Array();
  try {
    const text = new TextDecoder().decode(Uint8Array.fromBase64(base64));
    return decodePem(text, "CERTIFICATE REQUEST", 1)[0] ?? new Uint8Array();
  } catch {
    return new Uint8Array();
  }
}

/** Go writes an absent list, map or pointer as null; it means the same as leaving it out. */
function maybe<const S extends v.GenericSchema>(schema: S) {
  return v.pipe(v.nullish(schema), v.transform((value) => value ?? undefined));
}

const short = v.pipe(v.string(), v.maxLength(1024));

const CsrSchema = v.object({
  metadata: v.object({
    name: short,
    uid: short,
    resourceVersion: short,
    creationTimestamp: short,
    annotations: maybe(v.record(v.string(), v.string())),
  }),
  spec: v.object({
    request: v.string(),
    signerName: short,
    username: maybe(short),
    extra: maybe(v.record(v.string(), v.array(v.string()))),
    usages: maybe(v.array(short)),
    expirationSeconds: maybe(v.number()),
  }),
  status: maybe(v.object({
    certificate: maybe(v.string()),
    conditions: maybe(v.array(v.looseObject({ type: short }))),
  })),
});

const POD_ANNOTATIONS = [
  POD_NAMESPACE_ANNOTATION,
  POD_NAME_ANNOTATION,
  POD_UID_ANNOTATION,
  POD_ADDRESSES_ANNOTATION,
];

/** No name and no pair of addresses is longer. */
const MAX_TEXT = 253;

/**
 * base64 of base64 takes not quite twice as much as what is in it, and there may be some text
 * around that.
 */
export const MAX_REQUEST_LENGTH = 2 * MAX_CSR_BYTES + 1024;
