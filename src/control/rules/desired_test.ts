import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { NOBODY_DENIED } from "../../cluster/deny_list.ts";
import type { ClusterObjects } from "../../cluster/cluster.ts";
import type { Pod } from "../../cluster/objects.ts";
import { settingsOf } from "./settings.ts";
import { desiredState } from "./desired.ts";

const A: Pod = {
  uid: "uid-a",
  namespace: "shop",
  name: "a",
  nodeName: "n1",
  serviceAccount: "sa-a",
  annotations: { "kube-gateway.io": "true" },
  addresses: ["10.0.0.1"],
  hostNetwork: false,
  phase: "Running",
  deleting: false,
};
const B: Pod = { ...A, uid: "uid-b", name: "b", serviceAccount: "sa-b" };

/** A namespace's annotations. */
function said(annotation: string | undefined): Record<string, string> {
  return annotation === undefined ? {} : { "kube-gateway.io": annotation };
}

function objects(pods: Pod[], annotation?: string): ClusterObjects {
  return {
    pods,
    namespaces: new Map([["shop", {
      name: "shop",
      annotations: said(annotation),
      deleting: false,
    }]]),
    registry: [],
    services: new Map(),
    nodes: new Map(),
    denied: NOBODY_DENIED,
    unread: [],
    endpoints: new Map(),
    hasNamespaces: false,
    runtimeHandlers: new Map([["kata", "kata-qemu"], ["odd", "odd"]]),
    complete: true,
  };
}

const desired = (o: ClusterObjects) => desiredState(o, "n1", "td");

Deno.test("an annotated local pod is to be enrolled", () => {
  const { enrolments, refused } = desired(objects([A]));
  deepStrictEqual(refused, []);
  deepStrictEqual([...enrolments], [["uid-a", {
    uid: "uid-a",
    namespace: "shop",
    name: "a",
    serviceAccount: "sa-a",
    identity: "spiffe://td/ns/shop/sa/sa-a",
    addresses: ["10.0.0.1"],
    settings: settingsOf({}),
    isGuarded: false,
  }]]);
});

Deno.test("who is enrolled, who is left alone, who is refused", () => {
  const annotated = (value: string) => ({ annotations: { "kube-gateway.io": value } });
  for (
    const [name, change, enrolled, reason] of [
      ["running", {}, true, undefined],
      ["pending, no address yet", { phase: "Pending", addresses: [] }, true, undefined],
      ["unknown phase", { phase: "Unknown" }, true, undefined],
      ["being deleted, still running", { deleting: true }, true, undefined],
      ["ended well", { phase: "Succeeded" }, false, undefined],
      ["ended badly", { phase: "Failed" }, false, undefined],
      ["ended while being deleted", { phase: "Failed", deleting: true }, false, undefined],
      ["ended, with a bad annotation", { phase: "Failed", ...annotated("x") }, false, undefined],
      ["no annotation", { annotations: {} }, false, undefined],
      ["other annotations", { annotations: { "kube-gateway.io/x": "true" } }, false, undefined],
      ["false", annotated("false"), false, undefined],
      ["on another node", { nodeName: "n2" }, false, undefined],
      ["on another node, bad annotation", { nodeName: "n2", ...annotated("x") }, false, undefined],
      ["not scheduled", { nodeName: "" }, false, undefined],
      ["True", annotated("True"), false, /"true" or "false", not "True"/],
      ["empty", annotated(""), false, /not ""/],
      ["blank", annotated("true "), false, /not "true "/],
      ["a cut value", annotated("true" + "x".repeat(252) + "…"), false, /not "truexx/],
      ["control characters", annotated("tr\nue"), false, /not "tr\\nue"/],
      ["host network", { hostNetwork: true }, false, /hostNetwork/],
      ["host network, false", { hostNetwork: true, ...annotated("false") }, false, undefined],
      ["loopback", { addresses: ["127.0.0.1"] }, false, /127\.0\.0\.1 is loopback/],
    ] as const
  ) {
    const { enrolments, refused } = desired(objects([{ ...A, ...change }]));
    strictEqual(enrolments.has("uid-a"), enrolled, name);
    strictEqual(refused.length, reason === undefined ? 0 : 1, name);
    const [only] = refused;
    if (reason === undefined || only === undefined) continue;
    match(only.reason, reason, name);
    strictEqual(only.reason.length < 150, true, name);
    deepStrictEqual([only.uid, only.namespace, only.name], ["uid-a", "shop", "a"]);
  }
});

Deno.test("a pod with a kernel of its own is refused, but its peers must not send it anything in clear", () => {
  const { enrolments, refused } = desired(objects([{ ...A, runtimeClass: "kata" }]));
  strictEqual(enrolments.size, 0);
  match(refused[0]?.reason ?? "", /runtime class kata/);
  deepStrictEqual(refused[0]?.registered, {
    identity: "spiffe://td/ns/shop/sa/sa-a",
    addresses: ["10.0.0.1"],
  });
  const guarded = desired(objects([{ ...A, runtimeClass: "odd" }])).enrolments.get("uid-a");
  strictEqual(guarded?.isGuarded, true, "one of which nobody knows is looked at");
});

Deno.test("a static pod is nobody, and its peers must not send it anything in clear", () => {
  const { enrolments, refused } = desired(objects([{ ...A, serviceAccount: "" }]));
  strictEqual(enrolments.size, 0);
  match(refused[0]?.reason ?? "", /a static pod has no service account/);
  deepStrictEqual(refused[0]?.registered?.addresses, ["10.0.0.1"]);
});

Deno.test("a namespace's annotation is that of its pods that have none of their own", () => {
  const bare: Pod = { ...A, annotations: {} };
  const no: Pod = { ...B, annotations: { "kube-gateway.io": "false" } };
  const other: Pod = { ...bare, uid: "uid-c", namespace: "bank" };
  const enrolled = (annotation?: string) => [
    ...desired(objects([bare, no, other], annotation)).enrolments.keys(),
  ];
  deepStrictEqual(enrolled("true"), ["uid-a"]);
  deepStrictEqual(enrolled("false"), []);
  deepStrictEqual(enrolled(undefined), []);
  deepStrictEqual([...desired(objects([A], "false")).enrolments.keys()], ["uid-a"]);
  const { refused } = desired(objects([bare, no, other], "yes"));
  deepStrictEqual(refused.map(({ uid }) => uid), ["uid-a"]);
  match(refused[0]?.reason ?? "", /namespace shop's annotation .* not "yes"/);
});
