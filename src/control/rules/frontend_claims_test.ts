import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { FrontendClaims } from "./frontend_claims.ts";

function at(address: string, port = 80) {
  return { address, port, affinitySeconds: 0, backends: [] };
}

Deno.test("a frontend is there as long as anybody claims it, in whatever order a Service takes over", () => {
  for (const order of [["old", "new"], ["new", "old"]]) {
    const claims = new FrontendClaims();
    claims.replace("a/old", 1, [at("10.96.0.1")]);
    const changes: Record<string, () => string[]> = {
      old: () => claims.replace("a/old", 1, []),
      new: () => claims.replace("a/new", 2, [at("10.96.0.1")]),
    };
    for (const change of order) deepStrictEqual(changes[change]?.(), ["10.96.0.1:80"]);
    strictEqual(claims.get("10.96.0.1:80")?.service, "a/new");
    deepStrictEqual(claims.conflicts(), []);
  }
});

Deno.test("two Services swap their addresses, and at the end each has the other's", () => {
  const claims = new FrontendClaims();
  claims.replace("a/p", 1, [at("10.96.0.1")]);
  claims.replace("a/q", 2, [at("fd96::2")]);
  deepStrictEqual(claims.replace("a/p", 1, [at("fd96::2")]), ["10.96.0.1:80", "[fd96::2]:80"]);
  strictEqual(claims.get("[fd96::2]:80")?.service, "a/p");
  claims.replace("a/q", 2, [at("10.96.0.1")]);
  deepStrictEqual([...claims].map(([key, { service }]) => `${key} ${service}`).sort(), [
    "10.96.0.1:80 a/q",
    "[fd96::2]:80 a/p",
  ]);
});

Deno.test("of two claims the older is believed, whatever came first, and both are told", () => {
  for (const order of [["a/x", "a/y"], ["a/y", "a/x"]]) {
    const claims = new FrontendClaims();
    for (const service of order) {
      claims.replace(service, service === "a/y" ? 1 : 2, [at("10.96.0.1")]);
    }
    strictEqual(claims.get("10.96.0.1:80")?.service, "a/y");
    deepStrictEqual(claims.conflicts(), [{ key: "10.96.0.1:80", services: ["a/y", "a/x"] }]);
    claims.replace("a/y", 1, []);
    strictEqual(claims.get("10.96.0.1:80")?.service, "a/x");
    strictEqual(claims.size, 1);
  }
});
