import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { LogBudget } from "./log_budget.ts";

Deno.test("some lines at once, then so many a second, and the next one says how many were left out", () => {
  const budget = new LogBudget({ burst: 3, perMillisecond: 0.01 });
  const taken = (times: number, now: number) =>
    Array.from({ length: times }, () => budget.take(now));
  deepStrictEqual(taken(5, 1_000), [0, 0, 0, undefined, undefined]);
  strictEqual(budget.take(1_099), undefined);
  deepStrictEqual(taken(2, 1_100), [3, undefined]);
  deepStrictEqual(taken(4, 100_000), [1, 0, 0, undefined], "no more is saved than the first");
});
