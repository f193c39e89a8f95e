import { noSuchPath } from "./status.ts";

export interface Resource {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
  readonly subresources: readonly string[];
}

// group/version | kind | plural | namespaced or cluster | subresources
const TABLE = `
v1 Pod pods namespaced status,binding
v1 Service services namespaced status
v1 Namespace namespaces cluster status
v1 Node nodes cluster status
v1 Secret secrets namespaced
v1 ConfigMap configmaps namespaced
v1 Event events namespaced
v1 Endpoints endpoints namespaced
v1 ServiceAccount serviceaccounts namespaced
discovery.k8s.io/v1 EndpointSlice endpointslices namespaced
certificates.k8s.io/v1 CertificateSigningRequest certificatesigningrequests cluster status,approval
coordination.k8s.io/v1 Lease leases namespaced
events.k8s.io/v1 Event events namespaced
rbac.authorization.k8s.io/v1 Role roles namespaced
rbac.authorization.k8s.io/v1 RoleBinding rolebindings namespaced
rbac.authorization.k8s.io/v1 ClusterRole clusterroles cluster
rbac.authorization.k8s.io/v1 ClusterRoleBinding clusterrolebindings cluster
apps/v1 DaemonSet daemonsets namespaced status
apps/v1 Deployment deployments namespaced status
apps/v1 ReplicaSet replicasets namespaced status
apps/v1 StatefulSet statefulsets namespaced status
policy/v1 PodDisruptionBudget poddisruptionbudgets namespaced status
networking.k8s.io/v1 NetworkPolicy networkpolicies namespaced
node.k8s.io/v1 RuntimeClass runtimeclasses cluster
scheduling.k8s.io/v1 PriorityClass priorityclasses cluster
admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy validatingadmissionpolicies cluster status
admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding validatingadmissionpolicybindings cluster
admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration validatingwebhookconfigurations cluster
`;

export const RESOURCES: readonly Resource[] = TABLE.trim().split("\n").map((line) => {
  const [groupVersion = "", kind = "", plural = "", scope, subresources = ""] = line.split(" ");
  const [group, version] = groupVersion.includes("/")
    ? groupVersion.split("/")
    : ["", groupVersion];
  return {
    group: group ?? "",
    version: version ?? "",
    plural,
    kind,
    namespaced: scope === "namespaced",
    subresources: subresources.split(",").filter(Boolean),
  };
});

export function groupVersion({ group, version }: { group: string; version: string }): string {
  return group === "" ? version : `${group}/${version}`;
}

/** Tells the resources of a store apart. */
export function resourceKey({ group, plural }: Resource): string {
  return `${group}/${plural}`;
}

export function findResource(group: string, version: string, plural: string): Resource {
  const found = RESOURCES.find((resource) =>
    resource.group === group && resource.version === version && resource.plural === plural
  );
  if (!found) throw noSuchPath();
  return found;
}

/** The resource of a kind. @throws {Error} when the server has no such kind. */
export function resourceOfKind(apiVersion: string, kind: string): Resource {
  const found = RESOURCES.find((resource) =>
    groupVersion(resource) === apiVersion && resource.kind === kind
  );
  if (!found) throw new Error(`The API server for tests has no ${apiVersion} ${kind}`);
  return found;
}

/** Where an object, or the collection when `name` is empty, is on the server. */
export function pathOf(resource: Resource, namespace: string, name = ""): string {
  const parts = [resource.group === "" ? "/api" : "/apis", groupVersion(resource)];
  if (resource.namespaced && namespace !== "") parts.push("namespaces", namespace);
  parts.push(resource.plural);
  if (name !== "") parts.push(name);
  return parts.join("/");
}

const VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/** The discovery documents; undefined for a path that is none of theirs. */
export function discovery(path: string): Record<string, unknown> | undefined {
  const groups = [...new Set(RESOURCES.map(({ group }) => group))].filter(Boolean);
  if (path === "/api") return { kind: "APIVersions", versions: ["v1"] };
  if (path === "/apis") {
    return { kind: "APIGroupList", apiVersion: "v1", groups: groups.map(describeGroup) };
  }
  const [, group, version, ...more] = path === "/api/v1"
    ? ["", "", "v1"]
    : path.slice(1).split("/");
  if (more.length > 0 || group === undefined || (group !== "" && !path.startsWith("/apis/"))) {
    return undefined;
  }
  if (version === undefined) {
    if (!groups.includes(group)) return undefined;
    return { kind: "APIGroup", apiVersion: "v1", ...describeGroup(group) };
  }
  const own = RESOURCES.filter((resource) =>
    resource.group === group && resource.version === version
  );
  if (own.length === 0) return undefined;
  return {
    kind: "APIResourceList",
    apiVersion: "v1",
    groupVersion: groupVersion({ group, version }),
    resources: own.flatMap(describeResource),
  };
}

function describeGroup(group: string): Record<string, unknown> {
  const version = { groupVersion: `${group}/v1`, version: "v1" };
  return { name: group, versions: [version], preferredVersion: version };
}

function describeResource({ plural, kind, namespaced, subresources }: Resource) {
  return [
    { name: plural, singularName: kind.toLowerCase(), namespaced, kind, verbs: VERBS },
    ...subresources.map((subresource) => ({
      name: `${plural}/${subresource}`,
      singularName: "",
      namespaced,
      kind,
      verbs: subresource === "binding" ? ["create"] : ["get", "patch", "update"],
    })),
  ];
}
