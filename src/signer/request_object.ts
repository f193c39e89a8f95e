import * as v from "valibot";
import { REQUESTS_PATH } from "../identity/signing_names.ts";
import type { ApiRequests } from "../kubernetes/api.ts";
import { ApiError } from "../kubernetes/errors.ts";
import type { CsrFacts } from "./facts.ts";

/** What a change to a CertificateSigningRequest is made to. */
export type RequestVersion = Pick<CsrFacts, "name" | "resourceVersion" | "conditions">;

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
 * Writes a decision into a request and returns its version then. The resourceVersion that was read
 * guards the write: whoever decides, decides on what is. It is a patch, so that the object need not
 * be kept to be written.
 *
 * @throws {ApiError} 409 when the request has changed since it was read.
 */
export async function patchRequest(
  api: ApiRequests,
  { name, resourceVersion, conditions }: RequestVersion,
  change: RequestChange,
  timeoutMs: number,
): Promise<RequestVersion> {
  const decides = "condition" in change && change.condition.type !== "Failed";
  const after = "condition" in change ? [...conditions, condition(change.condition)] : conditions;
  const status = "certificate" in change
    ? { certificate: new TextEncoder().encode(change.certificate).toBase64() }
    : { conditions: after };
  const answer = await api.request(
    "PATCH",
    `${REQUESTS_PATH}/${name}/${decides ? "approval" : "status"}`,
    {
      timeoutMs,
      contentType: "application/merge-patch+json",
      body: { metadata: { resourceVersion }, status },
    },
  );
  const { metadata } = v.parse(AnswerSchema, answer);
  return { name, resourceVersion: metadata.resourceVersion, conditions: after };
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

const AnswerSchema = v.object({ metadata: v.object({ resourceVersion: v.string() }) });
