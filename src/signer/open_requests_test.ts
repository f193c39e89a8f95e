import { deepStrictEqual, strictEqual } from "node:assert/strict";
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

Deno.test("who has asked ten minutes before the newest request waits no more", () => {
  const at = (name: string, minute: number) => ({
    name,
    createdAt: new Date(minute * 60_000),
    requester: "",
    object: {},
  });
  deepStrictEqual(awaited([]), new Set());
  deepStrictEqual(awaited([at("a", 1), at("b", 11), at("c", 12)]), new Set(["b", "c"]));
  const many = Array.from({ length: 200_000 }, (_, i) => at(`r${i}`, 5));
  strictEqual(awaited(many).size, many.length, "as many as an API server can hold");
});

function request(name: string, status: unknown, metadata: object, by: object = {}): unknown {
  return {
    metadata: { name, uid: "u", creationTimestamp: "2026-01-01T00:00:00Z", ...metadata },
    spec: { request: "", signerName: "a.b/c", ...by },
    status,
  };
}
