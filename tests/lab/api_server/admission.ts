import type { KubeObject } from "./objects.ts";
import type { Target } from "./operations.ts";
import { StatusError } from "./status.ts";
import type { UserInfo } from "./users.ts";

/** What an admission rule is asked about. */
export interface AdmissionRequest {
  operation: "CREATE" | "UPDATE" | "DELETE";
  user: UserInfo;
  group: string;
  /** The plural: "endpointslices". */
  resource: string;
  subresource: string;
  namespace: string;
  name: string;
  /** None for DELETE. */
  object?: KubeObject;
  /** None for CREATE. */
  oldObject?: KubeObject;
}

/** The default export of a module that the server is started with: why it refuses, or undefined. */
export type Admission = (request: AdmissionRequest) => string | undefined;

/** @throws {StatusError} 422, as a ValidatingAdmissionPolicy without a reason of its own. */
export function admit(
  admission: Admission | undefined,
  operation: AdmissionRequest["operation"],
  { resource: { group, plural: resource }, subresource, namespace, name, user }: Target,
  object: KubeObject | undefined,
  oldObject: KubeObject | undefined,
): void {
  const request = { operation, user, group, resource, subresource, namespace, name };
  const why = admission?.({ ...request, object, oldObject });
  if (why === undefined) return;
  const qualified = group === "" ? resource : `${resource}.${group}`;
  const message =
    `${qualified} "${name}" is forbidden: ValidatingAdmissionPolicy denied request: ${why}`;
  throw new StatusError(422, "Invalid", message, { name, group, kind: resource });
}
