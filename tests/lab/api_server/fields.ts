/** Which fields of a written object are the client's to say, and which the server's. */
import { type Fields, fieldsAt, isFields, type KubeObject, textAt } from "./objects.ts";
import type { DeleteOptions, Target } from "./operations.ts";
import { groupVersion, type Resource } from "./resources.ts";
import { badRequest } from "./status.ts";

/** The object in a request's body. @throws {StatusError} 400 when it is none for this address. */
export function readObject({ resource, namespace, name }: Target, body: unknown): KubeObject {
  if (!isFields(body)) throw badRequest("the body of the request is not a JSON object");
  const { apiVersion = groupVersion(resource), kind = resource.kind } = body;
  if (apiVersion !== groupVersion(resource) || kind !== resource.kind) {
    const wanted = `${groupVersion(resource)} ${resource.kind}`;
    throw badRequest(`${apiVersion} in version cannot be handled as ${wanted}: found ${kind}`);
  }
  const metadata = fieldsAt(body, "metadata");
  const given = textAt(metadata, "name");
  if (name !== "" && given !== "" && given !== name) {
    throw badRequest(
      `the name of the object (${given}) does not match the name on the URL (${name})`,
    );
  }
  const givenNamespace = textAt(metadata, "namespace");
  if (resource.namespaced && givenNamespace !== "" && givenNamespace !== namespace) {
    throw badRequest(
      "the namespace of the provided object does not match the namespace sent on the request",
    );
  }
  const { namespace: _namespace, managedFields: _managed, ...rest } = metadata;
  return {
    ...structuredClone(body),
    apiVersion,
    kind,
    metadata: {
      ...structuredClone(rest),
      name: given || name,
      ...(resource.namespaced ? { namespace } : {}),
      uid: textAt(metadata, "uid"),
      resourceVersion: textAt(metadata, "resourceVersion"),
    },
  } as KubeObject;
}

/** A write of the object itself leaves its status as it was, where that is a subresource. */
export function withoutStatus(resource: Resource, old: KubeObject, next: KubeObject): KubeObject {
  if (!resource.subresources.includes("status")) return next;
  const { status: _status, ...rest } = next;
  return (old.status === undefined
    ? rest
    : { ...rest, status: structuredClone(old.status) }) as KubeObject;
}

/** A write of a subresource leaves everything but the status as it was. */
export function withStatus(old: KubeObject, next: KubeObject): KubeObject {
  const { resourceVersion } = next.metadata;
  const kept = structuredClone(old);
  return { ...kept, metadata: { ...kept.metadata, resourceVersion }, status: next.status ?? {} };
}

/** The metadata that no update can change. */
export function keepServerFields(old: KubeObject, next: KubeObject): KubeObject["metadata"] {
  const metadata: Fields = { ...next.metadata };
  for (const name of SERVER_FIELDS) {
    if (old.metadata[name] === undefined) delete metadata[name];
    else metadata[name] = old.metadata[name];
  }
  return metadata as KubeObject["metadata"];
}

const SERVER_FIELDS = [
  "name",
  "namespace",
  "uid",
  "resourceVersion",
  "creationTimestamp",
  "deletionTimestamp",
  "deletionGracePeriodSeconds",
  "generation",
  "generateName",
] as const;

/** What the generation counts the changes of. */
export function contentOf(object: KubeObject): Fields {
  const { metadata: _metadata, status: _status, ...content } = object;
  return content;
}

export function hasSpec(object: KubeObject): boolean {
  return object.spec !== undefined || object.kind === "EndpointSlice";
}

/** How long a pod that runs may take to end, in seconds; 0 for everything else. */
export function gracePeriod(
  resource: Resource,
  object: KubeObject,
  options: DeleteOptions,
): number {
  if (resource.plural !== "pods") return 0;
  const isOver = ["Succeeded", "Failed"].includes(textAt(object, "status.phase"));
  if (isOver || textAt(object, "spec.nodeName") === "") return 0;
  const seconds = fieldsAt(object, "spec").terminationGracePeriodSeconds;
  return options.gracePeriodSeconds ?? (typeof seconds === "number" ? seconds : 30);
}

/** As the API server makes names: no vowels, so no words. */
export function randomSuffix(): string {
  const letters = "bcdfghjklmnpqrstvwxz2456789";
  const bytes = crypto.getRandomValues(new Uint8Array(5));
  return Array.from(bytes, (byte) => letters[byte % letters.length]).join("");
}
