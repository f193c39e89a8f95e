import { deepStrictEqual } from "node:assert/strict";
import { LogBudget } from "./log_budget.ts";

Deno.test("some lines at once, then so many a second, and the next one says how many were left out", () => {
  const budget = new LogBudget({ burst: 3, perMillisecond: 0.01 });
  const taken = (times: number, now: number) =>
    Array.from({ length: times }, () => budget.take({ pod: "web" }, now));
  const [line, none] = [{ pod: "web" }, undefined];
  deepStrictEqual(taken(5, 1_000), [line, line, line, none, none]);
  deepStrictEqual(taken(1, 1_099), [none]);
  deepStrictEqual(taken(2, 1_100), [{ ...line, suppressed: 3 }, none]);
  deepStrictEqual(
    taken(4, 100_000),
    [{ ...line, suppressed: 1 }, line, line, none],
    "no more is saved than the first",
  );
});
