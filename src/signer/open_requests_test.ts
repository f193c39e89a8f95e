import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { awaited, readRequest } from "./open_requests.ts";

Deno.test("a request counts until it is decided and signed, and what is none is passed over", () => {
  const read = (status: unknown, metadata: object = {}) =>
    readRequest(request("r", status, metadata));
  strictEqual(read(undefined)?.name, "r");
  strictEqual(read({ conditions: [{ type: "Approved" }] })?.name, "r");
  strictEqual(read({ conditions: [{ type: "Denied" }] }), undefined);
  strictEqual(read({ conditions: [{ type: "Approved" }, { type: "Failed" }] }), undefined);
  strictEqual(read({ certificate: "x" }), undefined);
  strictEqual(read(undefined, { uid: 7 }), undefined);
  strictEqual(readRequest(undefined), undefined);
  const extra = { "authentication.kubernetes.io/node-name": ["node-a"] };
  strictEqual(
    readRequest(request("r", undefined, {}, { username: "agent", extra }))?.requester,
    "agent node-a",
  );
});

Deno.test("of a large request only what is decided about is kept, and of a decided one nothing", () => {
  const large = "x".repeat(300_000);
  const metadata = {
    annotations: { other: large, "kube-gateway.io/pod-name": large },
    labels: { large },
    finalizers: [large],
    managedFields: [{ fieldsV1: { large } }],
  };
  const spec = {
    request: large,
    username: "agent",
    uid: large,
    groups: [large],
    extra: { "authentication.kubernetes.io/node-name": ["node-a", large, large], large: [large] },
    usages: Array.from({ length: 10_000 }, (_, index) => `usage ${index}`),
  };
  const kept = readRequest(request("r", undefined, metadata, spec));
  strictEqual(kept?.facts.requestLength, large.length);
  strictEqual(kept.facts.annotations["kube-gateway.io/pod-name"], "(300000 characters)");
  const { length } = JSON.stringify(kept);
  ok(length < 2_000, `${length} characters are kept`);
  const denied = { conditions: [{ type: "Denied", message: large }] };
  strictEqual(readRequest(request("r", denied, metadata, spec)), undefined);
});

Deno.test("who has asked ten minutes before the newest request waits no more", () => {
  const at = (name: string, minute: number) => ({
    name,
    createdAt: new Date(minute * 60_000),
  });
  deepStrictEqual(awaited([]), new Set());
  deepStrictEqual(awaited([at("a", 1), at("b", 11), at("c", 12)]), new Set(["b", "c"]));
  const many = Array.from({ length: 200_000 }, (_, i) => at(`r${i}`, 5));
  strictEqual(awaited(many).size, many.length, "as many as an API server can hold");
});

function request(name: string, status: unknown, metadata: object, by: object = {}): unknown {
  return {
    metadata: {
      name,
      uid: "u",
      resourceVersion: "1",
      creationTimestamp: "2026-01-01T00:00:00Z",
      ...metadata,
    },
    spec: { request: "", signerName: "a.b/c", ...by },
    status,
  };
}
