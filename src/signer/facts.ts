/**
 * What the signer keeps of the objects it decides about. Everything here was written by others:
 * texts are bounded, and what is not of the form that Kubernetes gives it is refused when it is
 * read.
 */
import * as v from "valibot";
import { MAX_CSR_BYTES } from "../identity/leaf.ts";
import { decodePem } from "../identity/pem.ts";

/** A certificates.k8s.io/v1 CertificateSigningRequest. */
export interface CsrFacts {
  readonly name: string;
  readonly uid: string;
  readonly createdAt: Date;
  readonly signerName: string;
  /** Filled in by the API server from the requester's credentials, like `extra`; immutable. */
  readonly username: string;
  readonly extra: Readonly<Record<string, readonly string[]>>;
  readonly usages: readonly string[];
  readonly expirationSeconds: number | undefined;
  readonly annotations: Readonly<Record<string, string>>;
  /** The PKCS#10, DER; empty when there is none in `spec.request`. */
  readonly request: Uint8Array;
  readonly state: "pending" | "approved" | "denied" | "failed" | "issued";
}

/** @throws {v.ValiError} when `value` is no CertificateSigningRequest. */
export function readCsr(value: unknown): CsrFacts {
  const { metadata, spec, status } = v.parse(CsrSchema, value);
  const conditions = (status?.conditions ?? []).map(({ type }) => type);
  return {
    name: metadata.name,
    uid: metadata.uid,
    createdAt: new Date(metadata.creationTimestamp),
    signerName: spec.signerName,
    username: spec.username ?? "",
    extra: spec.extra ?? {},
    usages: spec.usages ?? [],
    expirationSeconds: spec.expirationSeconds,
    annotations: metadata.annotations ?? {},
    request: requestOf(spec.request),
    state: (status?.certificate ?? "") !== ""
      ? "issued"
      : conditions.includes("Denied")
      ? "denied"
      : conditions.includes("Failed")
      ? "failed"
      : conditions.includes("Approved")
      ? "approved"
      : "pending",
  };
}

/**
 * The DER inside base64 of PEM, or nothing: whoever sent something else is told that it is no
 * request.
 */
function requestOf(base64: string): Uint8Array {
  if (base64.length > 3 * MAX_CSR_BYTES) return new Uint8Array();
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
    conditions: maybe(v.array(v.object({ type: short }))),
  })),
});
