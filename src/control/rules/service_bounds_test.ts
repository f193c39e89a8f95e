import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { refusedServices, type ServiceLimits, type ServiceNeed } from "./service_bounds.ts";

const LIMITS: ServiceLimits = {
  ofService: { frontends: 10, backends: 100 },
  ofNamespace: { frontends: 20, backends: 200 },
  ofAll: { frontends: 50, backends: 500 },
};

function need(service: string, frontends: number, backends = frontends, created = 0): ServiceNeed {
  return { service, created, frontends, backends };
}

function refused(needs: ServiceNeed[]): string[] {
  return [...refusedServices(needs, LIMITS).keys()].sort();
}

Deno.test("what is within the bounds is not refused", () => {
  deepStrictEqual(refused([]), []);
  deepStrictEqual(refused([need("a/a", 10, 100), need("a/b", 10, 100), need("b/a", 10)]), []);
});

Deno.test("a Service beyond its own bound is refused, and costs its namespace nothing", () => {
  deepStrictEqual(refused([need("a/a", 10), need("a/b", 11), need("a/c", 10)]), ["a/b"]);
  const reasons = refusedServices([need("a/b", 1, 101)], LIMITS);
  match(reasons.get("a/b") ?? "", /a Service would have 101 backends.* at most 100/);
});

Deno.test("beyond the namespace's bound the younger Services are refused, whatever the order", () => {
  const needs = [
    need("a/old", 10, 10, 1),
    need("a/new", 10, 10, 3),
    need("a/mid", 8, 10, 2),
    need("a/small", 2, 2, 4),
  ];
  deepStrictEqual(refused(needs), ["a/new"]);
  deepStrictEqual(refused(needs.toReversed()), ["a/new"]);
  deepStrictEqual(refused([need("a/1", 9), need("a/3", 9), need("a/2", 9)]), ["a/3"], "by name");
});

Deno.test("one namespace takes nothing from another, and all of them find room", () => {
  const greedy = Array.from({ length: 30 }, (_, index) => need(`evil/${index}`, 10));
  deepStrictEqual(refused([...greedy, need("a/a", 10), need("b/b", 10)]).length, 28);
  // Five that want 20 each have 10 of the 50; the one that wants less has it.
  const many = "abcde".split("").flatMap((name) => [need(`${name}/1`, 10), need(`${name}/2`, 10)]);
  const late = refused([...many, need("z/late", 5)]);
  strictEqual(late.includes("z/late"), false);
  const kept = many.filter(({ service }) => !late.includes(service));
  strictEqual(kept.reduce((sum, { frontends }) => sum + frontends, 5) <= 50, true);
});
