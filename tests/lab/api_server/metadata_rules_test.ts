import assert from "node:assert/strict";
import { generatedNameBase, metadataViolations } from "./metadata_rules.ts";
import type { Metadata } from "./objects.ts";
import { resourceOfKind } from "./resources.ts";

const POD = resourceOfKind("v1", "Pod");

Deno.test("metadata is judged by apimachinery's rules (pkg/api/validation/objectmeta.go)", () => {
  const owner = { apiVersion: "v1", kind: "Node", name: "node-a", uid: "u" };
  for (
    const [what, metadata, wanted] of [
      ["a name", {}, ""],
      ["a name with dots", { name: "a.b-c.d" }, ""],
      ["no name", { name: "" }, "metadata.name"],
      ["a capital", { name: "Web" }, "metadata.name"],
      ["an underscore", { name: "a_b" }, "metadata.name"],
      ["two dots", { name: "a..b" }, "metadata.name"],
      ["a trailing dash", { name: "a-" }, "metadata.name"],
      ["253 characters", { name: "a".repeat(253) }, ""],
      ["254 characters", { name: "a".repeat(254) }, "metadata.name"],
      ["a beginning with a dash", { generateName: "pod-01-" }, ""],
      ["a beginning without one", { generateName: "pod-01" }, ""],
      // Only a trailing dash is masked (pkg/api/validation/generic.go, maskTrailingDash).
      ["a beginning with a dot", { generateName: "pod-01." }, "metadata.generateName"],
      ["a beginning with a dot and a dash", { generateName: "pod-01.-" }, ""],
      ["a beginning with a slash", { generateName: "pod/" }, "metadata.generateName"],
      ["no namespace", { namespace: "" }, "metadata.namespace"],
      ["a namespace with a dot", { namespace: "a.b" }, "metadata.namespace"],
      ["labels", { labels: { "a.b/c_D": "e.F", g: "" } }, ""],
      ["a label's slash", { labels: { "a/b/c": "" } }, "metadata.labels"],
      ["a label's empty prefix", { labels: { "/b": "" } }, "metadata.labels"],
      ["a label's capital prefix", { labels: { "A/b": "" } }, "metadata.labels"],
      ["a label's value with a slash", { labels: { a: "b/c" } }, "metadata.labels"],
      ["a label's value of 64", { labels: { a: "b".repeat(64) } }, "metadata.labels"],
      ["a label's number", { labels: { a: 1 } }, "metadata.labels"],
      ["annotations", { annotations: { "A.b/c": "\n/ü" } }, ""],
      ["an annotation's blank", { annotations: { "a b": "" } }, "metadata.annotations"],
      ["an annotation's number", { annotations: { a: 1 } }, "metadata.annotations"],
      ["256 KiB", { annotations: { a: "b".repeat(256 * 1024 - 1) } }, ""],
      ["a byte more", { annotations: { a: "b".repeat(256 * 1024) } }, "metadata.annotations"],
      ["more in bytes", { annotations: { a: "ü".repeat(128 * 1024) } }, "metadata.annotations"],
      ["an owner", { ownerReferences: [owner] }, ""],
      ["no UID", { ownerReferences: [{ ...owner, uid: "" }] }, "metadata.ownerReferences.uid"],
      ["no kind", { ownerReferences: [{ ...owner, kind: "" }] }, "metadata.ownerReferences.kind"],
      ["an Event", { ownerReferences: [{ ...owner, kind: "Event" }] }, "metadata.ownerReferences"],
      [
        "two that control",
        { ownerReferences: [1, 2].map(() => ({ ...owner, controller: true })) },
        "metadata.ownerReferences",
      ],
      ["finalizers", { finalizers: ["a.b/c", "orphan"] }, ""],
      ["a finalizer's blank", { finalizers: ["a b"] }, "metadata.finalizers"],
      ["both", { finalizers: ["orphan", "foregroundDeletion"] }, "metadata.finalizers"],
    ] as [string, object, string][]
  ) {
    const given = { name: "web", namespace: "shop", uid: "u", resourceVersion: "1", ...metadata };
    const found = metadataViolations(POD, given as Metadata).map(({ field }) => field).join();
    assert.equal(found, wanted, what);
  }
});

Deno.test("each kind has its rule for names", () => {
  for (
    const [apiVersion, kind, name, isGood] of [
      ["v1", "Namespace", "a.b", false],
      ["v1", "Service", "1a", false],
      ["v1", "Service", "a1", true],
      ["v1", "Node", "a.b", true],
      ["rbac.authorization.k8s.io/v1", "ClusterRole", "system:Node_1", true],
      ["rbac.authorization.k8s.io/v1", "ClusterRole", "a/b", false],
      ["rbac.authorization.k8s.io/v1", "ClusterRole", "..", false],
    ] as const
  ) {
    const resource = resourceOfKind(apiVersion, kind);
    const found = metadataViolations(resource, {
      name,
      ...(resource.namespaced ? { namespace: "shop" } : {}),
      uid: "u",
      resourceVersion: "1",
    });
    assert.equal(found.length === 0, isGood, `${kind} ${name}`);
  }
});

Deno.test("whoever is being deleted takes on no finalizer", () => {
  const old = { name: "a", namespace: "b", uid: "u", resourceVersion: "1", finalizers: ["x/a"] };
  const next = { ...old, finalizers: ["x/a", "x/b"] };
  assert.deepEqual(metadataViolations(POD, next, old), []);
  const [found] = metadataViolations(POD, next, { ...old, deletionTimestamp: "now" });
  assert.match(found?.why ?? "", /no new finalizers/);
});

Deno.test("a generated name has at most 63 characters (apiserver/pkg/storage/names)", () => {
  assert.equal(generatedNameBase("a".repeat(100)).length, 58);
});
