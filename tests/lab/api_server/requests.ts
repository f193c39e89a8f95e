import { findResource, type Resource } from "./resources.ts";
import { noSuchPath } from "./status.ts";

/** A request for a resource, taken apart as the API server does for RBAC. */
export interface ResourceRequest {
  readonly verb: Verb;
  readonly resource: Resource;
  readonly subresource: string;
  readonly namespace: string;
  /** Empty for the collection. */
  readonly name: string;
}

export type Verb =
  | "get"
  | "list"
  | "watch"
  | "create"
  | "update"
  | "patch"
  | "delete"
  | "deletecollection";

/** What a request is for; undefined when its path is none of a resource's. @throws {StatusError} */
export function readRequest(method: string, url: URL): ResourceRequest | undefined {
  const parts = url.pathname.split("/").filter(Boolean).map(decodeURIComponent);
  const [root, group = "", version = ""] = parts[0] === "api" ? ["api", "", parts[1]] : parts;
  const rest = parts.slice(root === "api" ? 2 : 3);
  if ((root !== "api" && root !== "apis") || rest.length === 0) return undefined;
  const isNamespaced = rest[0] === "namespaces" && rest.length > 2 && rest[2] !== "status";
  const namespace = isNamespaced ? rest[1] ?? "" : "";
  const [plural = "", name = "", subresource = "", ...more] = isNamespaced ? rest.slice(2) : rest;
  const resource = findResource(group, version, plural);
  if (more.length > 0 || (namespace !== "" && !resource.namespaced)) throw noSuchPath();
  if (subresource !== "" && !resource.subresources.includes(subresource)) throw noSuchPath();
  // Only collections exist across namespaces.
  if (resource.namespaced && namespace === "" && (name !== "" || method === "POST")) {
    throw noSuchPath();
  }
  return { verb: verbOf(method, name, url.searchParams), resource, subresource, namespace, name };
}

export function isTrue(text: string | null): boolean {
  return text === "true" || text === "1";
}

function verbOf(method: string, name: string, query: URLSearchParams): Verb {
  switch (method) {
    case "GET":
      if (isTrue(query.get("watch"))) return "watch";
      return name === "" ? "list" : "get";
    case "POST":
      return "create";
    case "PUT":
      return "update";
    case "PATCH":
      return "patch";
    case "DELETE":
      return name === "" ? "deletecollection" : "delete";
    default:
      throw noSuchPath();
  }
}
