import * as v from "valibot";
import { REQUESTS_PATH } from "../identity/signing_names.ts";
import type { ApiRequests } from "../kubernetes/api.ts";
import { ApiError } from "../kubernetes/errors.ts";

/** A CertificateSigningRequest as it was read, to be written back with a change. */
export type RequestObject = v.InferOutput<typeof RequestSchema>;

/** Either a condition or the certificate chain, PEM. */
export type RequestChange =
  | {
    readonly condition: {
      readonly type: "Approved" | "Denied" | "Failed";
      readonly reason: string;
      readonly message: string;
    };
  }
  | { readonly certificate: string };

/**
 * Writes a decision into a request and returns it as it is then. The resourceVersion that was read
 * guards the write: whoever decides, decides on what is.
 *
 * @throws {ApiError} 409 when the request has changed since it was read.
 */
export async function putRequest(
  api: ApiRequests,
  { metadata, status, ...rest }: RequestObject,
  change: RequestChange,
  timeoutMs: number,
): Promise<unknown> {
  const decides = "condition" in change && change.condition.type !== "Failed";
  const added = "certificate" in change
    ? { certificate: new TextEncoder().encode(change.certificate).toBase64() }
    : { conditions: [...status?.conditions ?? [], condition(change.condition)] };
  return await api.request(
    "PUT",
    `${REQUESTS_PATH}/${metadata.name}/${decides ? "approval" : "status"}`,
    {
      timeoutMs,
      body: {
        ...rest,
        apiVersion: "certificates.k8s.io/v1",
        kind: "CertificateSigningRequest",
        metadata,
        status: { ...status, ...added },
      },
    },
  );
}

/** @throws {v.ValiError} when `value` is no Kubernetes object. */
export function asRequest(value: unknown): RequestObject {
  return v.parse(RequestSchema, value);
}

/** The answer, or undefined when there is no such object. */
export async function orUndefined(answer: Promise<unknown>): Promise<unknown> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return undefined;
    throw error;
  }
}

function condition(given: { type: string; reason: string; message: string }) {
  const lastUpdateTime = `${new Date().toISOString().slice(0, 19)}Z`; // meta/v1 Time: whole seconds
  return { ...given, status: "True", lastUpdateTime };
}

const RequestSchema = v.looseObject({
  metadata: v.looseObject({ name: v.string() }),
  status: v.optional(v.looseObject({ conditions: v.nullish(v.array(v.unknown())) })),
});
