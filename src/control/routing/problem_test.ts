import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { listed, type RoutingProblem } from "./problem.ts";

Deno.test("a tenant's thousand broken Services hide no problem of another's, nor of the cluster's", () => {
  const problemOf = (where: string): RoutingProblem => ({ where, message: "", ranges: [] });
  const evil = Array.from({ length: 1_000 }, (_, index) => problemOf(`evil/service-${index}`));
  const others = ["shop/web", "strict egress"].map(problemOf);
  const list = listed([...evil, ...others]);
  strictEqual(list.length, 201);
  for (const other of others) ok(list.includes(other), other.where);
  match(list.at(-1)?.message ?? "", /^802 further problems/);
  deepStrictEqual(listed(others), others);
});
