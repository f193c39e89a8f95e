import type { KubeObject } from "./objects.ts";
import type { Target } from "./operations.ts";
import { resourceOfKind } from "./resources.ts";
import { StatusError } from "./status.ts";
import type { Store } from "./store.ts";
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

/** What is on the server at that moment, for rules that look at other objects. */
export type ListObjects = (apiVersion: string, kind: string, namespace: string) => KubeObject[];

export interface Refusal {
  /** Of the Status: "Invalid" or "Forbidden". */
  readonly reason: string;
  readonly message: string;
}

/** The default export of a module that the server is started with: why it refuses, or undefined. */
export type Admission = (request: AdmissionRequest, list?: ListObjects) => Refusal | undefined;

/** @throws {StatusError} 422, or 403 where a ValidatingAdmissionPolicy has that reason. */
export function admit(
  admission: Admission | undefined,
  operation: AdmissionRequest["operation"],
  { resource: { group, plural: resource }, subresource, namespace, name, user }: Target,
  object: KubeObject | undefined,
  oldObject: KubeObject | undefined,
  store: Store,
): void {
  const list: ListObjects = (apiVersion, kind, namespace) =>
    store.collection(resourceOfKind(apiVersion, kind)).sorted(namespace).map(({ object }) =>
      object
    );
  const request = { operation, user, group, resource, subresource, namespace, name };
  const why = admission?.({ ...request, object, oldObject }, list);
  if (why === undefined) return;
  const qualified = group === "" ? resource : `${resource}.${group}`;
  const message = `${qualified} "${name}" is forbidden: ValidatingAdmissionPolicy ${why.message}`;
  throw new StatusError(why.reason === "Forbidden" ? 403 : 422, why.reason, message, {
    name,
    group,
    kind: resource,
  });
}
