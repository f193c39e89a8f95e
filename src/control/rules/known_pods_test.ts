import { deepStrictEqual } from "node:assert/strict";
import { ANNOTATION } from "../../constants.ts";
import { knownUids, staticUidsOf } from "./known_pods.ts";
import { NOBODY_DENIED } from "../../cluster/deny_list.ts";
import type { ClusterObjects } from "../../cluster/cluster.ts";
import { CONFIG_HASH_ANNOTATION, MIRROR_ANNOTATION, type Pod } from "../../cluster/objects.ts";

function pod(uid: string, options: Partial<Pod> = {}): Pod {
  return {
    uid,
    namespace: "shop",
    name: uid,
    nodeName: "node-a",
    serviceAccount: "default",
    annotations: {},
    addresses: [],
    hostNetwork: false,
    phase: "Pending",
    deleting: false,
    ...options,
  };
}

function mirror(hash: string): Record<string, string> {
  return { [CONFIG_HASH_ANNOTATION]: hash, [MIRROR_ANNOTATION]: hash };
}

function known(
  pods: Pod[],
  { namespaces = [] as string[], hasNamespaces = true } = {},
): string[] {
  const objects: ClusterObjects = {
    pods,
    namespaces: new Map(
      namespaces.map((name) => [name, { name, annotations: {}, deleting: false }]),
    ),
    hasNamespaces,
    runtimeHandlers: new Map(),
    registry: [],
    services: new Map(),
    endpoints: new Map(),
    nodes: new Map(),
    denied: NOBODY_DENIED,
    unread: [],
    complete: true,
  };
  return [...knownUids(objects, "node-a")];
}

Deno.test("a pod is known by its UID, a static one by its manifest's hash, too", () => {
  const pods = [
    pod("1"),
    pod("2", { annotations: mirror("hash") }),
    pod("3", { nodeName: "node-b" }),
  ];
  deepStrictEqual(known(pods, { namespaces: ["shop"] }), ["1", "2", "hash"]);
});

Deno.test("a pod whose namespace has not been seen may be annotated by it", () => {
  const pods = [pod("1"), pod("2", { annotations: { [ANNOTATION]: "false" } })];
  deepStrictEqual(known(pods), ["2"]);
  deepStrictEqual(known(pods, { namespaces: ["other"] }), ["2"]);
  deepStrictEqual(known(pods, { namespaces: ["shop"] }), ["1", "2"]);
});

Deno.test("a directory need not say anything of namespaces", () => {
  deepStrictEqual(known([pod("1")], { hasNamespaces: false }), ["1"]);
});

Deno.test("only a mirror pod names a static pod's cgroup, and only if nobody else does", () => {
  const uids = (...pods: Pod[]) => Object.fromEntries(staticUidsOf(pods));
  deepStrictEqual(uids(pod("1", { annotations: mirror("hash") })), { 1: "hash" });
  deepStrictEqual(uids(pod("1", { annotations: { [CONFIG_HASH_ANNOTATION]: "hash" } })), {});
  const other = { [CONFIG_HASH_ANNOTATION]: "hash", [MIRROR_ANNOTATION]: "x" };
  deepStrictEqual(uids(pod("1", { annotations: other })), {});
  const twice = [
    pod("1", { annotations: mirror("hash") }),
    pod("2", { annotations: mirror("hash") }),
  ];
  deepStrictEqual(uids(...twice), {});
  deepStrictEqual(uids(pod("1", { annotations: mirror("2") }), pod("2")), {});
  for (const hash of ["1", "..", "a/b", ""]) {
    deepStrictEqual(uids(pod("1", { annotations: mirror(hash) })), {}, hash);
  }
});
