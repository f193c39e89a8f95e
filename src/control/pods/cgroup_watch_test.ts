import { deepStrictEqual } from "node:assert/strict";
import { ANNOTATION } from "../../constants.ts";
import { knownUids } from "./cgroup_watch.ts";
import type { ClusterObjects } from "../../cluster/cluster.ts";
import { CONFIG_HASH_ANNOTATION, type Pod } from "../../cluster/objects.ts";

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

function known(
  pods: Pod[],
  { namespaces = [] as string[], hasNamespaces = true } = {},
): string[] {
  const objects: ClusterObjects = {
    pods,
    namespaces: new Map(
      namespaces.map((name) => [name, { name, annotation: undefined, deleting: false }]),
    ),
    hasNamespaces,
    registry: [],
    services: new Map(),
    endpoints: new Map(),
    zone: undefined,
    complete: true,
  };
  return [...knownUids(objects, "node-a")];
}

Deno.test("a pod is known by its UID, a static one by its manifest's hash, too", () => {
  const pods = [
    pod("1"),
    pod("2", { annotations: { [CONFIG_HASH_ANNOTATION]: "hash" } }),
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
