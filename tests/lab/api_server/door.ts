import type { KubeObject } from "./objects.ts";
import { pathOf, type Resource, RESOURCES } from "./resources.ts";

/** An answer of the API server that is no success. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(readonly code: number, readonly reason: string, message: string) {
    super(message);
  }
}

/** A request to the server's admin socket. @throws {ApiError} */
export async function throughDoor(
  socket: string,
  method: string,
  path: string,
  body?: unknown,
  contentType = "application/json",
): Promise<unknown> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: socket } });
  const response = await fetch(`http://localhost${path}`, {
    client,
    method,
    headers: { "content-type": contentType },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  const answer: unknown = text.startsWith("{") || text.startsWith("[") || response.ok
    ? JSON.parse(text)
    : text;
  if (response.ok) return answer;
  const { reason = "", message = text } = answer as { reason?: string; message?: string };
  throw new ApiError(response.status, reason, `${method} ${path}: ${message}`);
}

/** What names an object to the server's own methods. */
export interface Reference {
  /** The plural: "pods"; with its group where two have one: "events.k8s.io/events". */
  resource: string;
  /** "default" when not given, for resources in namespaces. */
  namespace?: string;
  name: string;
}

export function pathOfReference({ resource, namespace = "default", name }: Reference): string {
  return pathOf(resourceNamed(resource), namespace, name);
}

/** The path of the collection that an object belongs to. */
export function pathOfCollection(resource: Resource, { metadata }: KubeObject): string {
  return pathOf(resource, metadata.namespace ?? (resource.namespaced ? "default" : ""));
}

export function resourceNamed(name: string): Resource {
  const [group, plural] = name.includes("/") ? name.split("/") : [undefined, name];
  const found = RESOURCES.find((resource) =>
    resource.plural === plural && (group ?? resource.group) === resource.group
  );
  if (!found) throw new Error(`The API server for tests has no resource ${name}`);
  return found;
}
