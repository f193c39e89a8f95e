import { type Fields, fieldsAt, isFields, type KubeObject, listAt, textAt } from "./objects.ts";
import { findResource } from "./resources.ts";
import { StatusError } from "./status.ts";
import type { Store } from "./store.ts";
import type { UserInfo } from "./users.ts";

/** What somebody wants to do with a resource. */
export interface Attributes {
  verb: string;
  group: string;
  /** With its subresource: "pods/status". */
  resource: string;
  namespace: string;
  /** Empty for a whole collection. */
  name: string;
}

const RBAC = "rbac.authorization.k8s.io";
const PUBLIC = ["/healthz", "/livez", "/readyz", "/version"];
const DISCOVERY = ["/api", "/apis", "/openapi"];

/** Role-based access control, from the Role and RoleBinding objects in the store. */
export class Authorizer {
  constructor(private readonly store: Store) {}

  /** @throws {StatusError} 403 in the words of a real server. */
  check(user: UserInfo, wanted: Attributes): void {
    if (this.allows(user, wanted)) return;
    const { verb, group, resource, namespace, name } = wanted;
    const scope = namespace === "" ? "at the cluster scope" : `in the namespace "${namespace}"`;
    const [plural = ""] = resource.split("/");
    const qualified = group === "" ? plural : `${plural}.${group}`;
    throw new StatusError(
      403,
      "Forbidden",
      `${qualified}${name === "" ? "" : ` "${name}"`} is forbidden: User "${user.username}" ` +
        `cannot ${verb} resource "${resource}" in API group "${group}" ${scope}`,
      { ...(name === "" ? {} : { name }), ...(group === "" ? {} : { group }), kind: plural },
    );
  }

  allows(user: UserInfo, wanted: Attributes): boolean {
    return this.#rulesOf(user, wanted.namespace).some((rule) => covers(rule, wanted));
  }

  checkPath(user: UserInfo, path: string): void {
    if (PUBLIC.includes(path)) return;
    const isKnown = user.groups.includes("system:authenticated");
    if (isKnown && DISCOVERY.some((root) => path === root || path.startsWith(`${root}/`))) return;
    const isAllowed = this.#rulesOf(user, "").some((rule) =>
      has(rule, "verbs", "get") &&
      listAt(rule, "nonResourceURLs").map(String).some((pattern) =>
        pattern.endsWith("*") ? path.startsWith(pattern.slice(0, -1)) : path === pattern
      )
    );
    if (isAllowed) return;
    const why = `User "${user.username}" cannot get path "${path}"`;
    throw new StatusError(403, "Forbidden", `forbidden: ${why}`);
  }

  #rulesOf(user: UserInfo, namespace: string): Fields[] {
    if (user.groups.includes("system:masters")) return [EVERYTHING];
    const clusterWide = this.#bindings("clusterrolebindings", "");
    const local = namespace === "" ? [] : this.#bindings("rolebindings", namespace);
    return [...clusterWide, ...local]
      .filter((binding) => listAt(binding, "subjects").some((subject) => isSubject(subject, user)))
      .flatMap((binding) => this.#rulesOfRole(binding));
  }

  #bindings(plural: string, namespace: string): KubeObject[] {
    return this.store.collection(findResource(RBAC, "v1", plural)).sorted(namespace)
      .map(({ object }) => object);
  }

  #rulesOfRole(binding: KubeObject): Fields[] {
    const isCluster = textAt(binding, "roleRef.kind") === "ClusterRole";
    const namespace = isCluster ? "" : binding.metadata.namespace ?? "";
    const resource = findResource(RBAC, "v1", isCluster ? "clusterroles" : "roles");
    const role = this.store.get(resource, namespace, textAt(binding, "roleRef.name"));
    return listAt(role?.object, "rules").filter(isFields);
  }
}

const EVERYTHING: Fields = {
  apiGroups: ["*"],
  resources: ["*"],
  verbs: ["*"],
  nonResourceURLs: ["*"],
};

function isSubject(subject: unknown, user: UserInfo): boolean {
  const { kind, name, namespace } = fieldsAt({ subject }, "subject");
  if (kind === "Group") return user.groups.includes(String(name));
  if (kind === "User") return user.username === name;
  return kind === "ServiceAccount" &&
    user.username === `system:serviceaccount:${namespace}:${name}`;
}

function covers(rule: Fields, { verb, group, resource, name }: Attributes): boolean {
  const [, subresource] = resource.split("/");
  const names = listAt(rule, "resourceNames").map(String);
  return has(rule, "verbs", verb) && has(rule, "apiGroups", group) &&
    (has(rule, "resources", resource) ||
      (subresource !== undefined && listAt(rule, "resources").includes(`*/${subresource}`))) &&
    (names.length === 0 || names.includes(name));
}

function has(rule: Fields, field: string, value: string): boolean {
  const values = listAt(rule, field);
  return values.includes("*") || values.includes(value);
}
