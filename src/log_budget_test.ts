import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import {
  LogBudget,
  LogShares,
  NAMESPACE_LINES,
  ofOne,
  ofWorkers,
  POD_LINES,
  Suppressed,
} from "./log_budget.ts";

Deno.test("some lines at once, then so many a second", () => {
  const budget = new LogBudget({ burst: 3, perMillisecond: 0.01 });
  const taken = (times: number, now: number) =>
    Array.from({ length: times }, () => budget.take(now)).filter((isTaken) => isTaken).length;
  deepStrictEqual([taken(5, 1_000), taken(1, 1_099), taken(2, 1_100)], [3, 0, 1]);
  strictEqual(taken(5, 100_000), 3, "no more is saved than the first");
  strictEqual(budget.isFull(100_299), false);
  strictEqual(budget.isFull(100_300), true);
  strictEqual(budget.take(100_000 + 100, 0.005), false, "another rate is in force");
});

Deno.test("the next line says how many were left out, by whichever budget, and each once", () => {
  const suppressed = new Suppressed();
  const line = { pod: "shop/web" };
  strictEqual(suppressed.say(true, line), line);
  strictEqual(suppressed.say(false, line), undefined);
  strictEqual(suppressed.say(false, { ...line, suppressed: 5 }), undefined, "it was to say five");
  deepStrictEqual(suppressed.say(true, { ...line, suppressed: 2 }), { ...line, suppressed: 9 });
  strictEqual(suppressed.say(true, line), line);
});

const RATES = { each: { burst: 10, perMillisecond: 0.02 }, perMillisecond: 0.04 };

Deno.test("a namespace that floods the log takes nothing of another's", () => {
  const shares = new LogShares(RATES);
  const flood = (now: number) =>
    Array.from({ length: 1_000 }, () => shares.take("evil", now)).filter((is) => is).length;
  strictEqual(flood(1_000), 10);
  for (let line = 0; line < 10; line++) ok(shares.take("shop", 1_000), `line ${line}`);
  strictEqual(flood(1_500), 10, "alone with one other, it has all of its rate");
});

Deno.test("all that flood the log have equal parts of what is written in the long run", () => {
  const shares = new LogShares(RATES);
  const names = Array.from({ length: 10 }, (_, index) => `evil-${index}`);
  const written = new Map(names.map((name) => [name, 0]));
  for (let now = 1_000; now <= 101_000; now += 10) {
    for (const name of names) {
      if (shares.take(name, now)) written.set(name, (written.get(name) ?? 0) + 1);
    }
  }
  const counts = [...written.values()];
  const sum = counts.reduce((a, b) => a + b, 0);
  ok(sum > 3_900 && sum <= 100_000 * 0.04 + 10 * 10, `${sum}`);
  ok(Math.max(...counts) - Math.min(...counts) <= 10, counts.join());
});

Deno.test("who is silent has no entry, and costs the others nothing; there is a bound", () => {
  const shares = new LogShares(RATES);
  for (let index = 0; index < 5_000; index++) shares.take(`ns-${index}`, 1_000);
  ok(shares.size <= 1_024, `${shares.size}`);
  ok(shares.take("shop", 60_000));
  strictEqual(shares.size, 1);
});

Deno.test("the shares of all workers together are the node's, and none is too small for a few lines", () => {
  deepStrictEqual(ofOne(1, POD_LINES), POD_LINES);
  deepStrictEqual(ofOne(4, { burst: 100, perMillisecond: 0.02 }), {
    burst: 25,
    perMillisecond: 0.005,
  });
  strictEqual(ofOne(64, POD_LINES).burst, 10);
  const { each, perMillisecond } = ofWorkers(4, NAMESPACE_LINES);
  strictEqual(each.perMillisecond * 4, NAMESPACE_LINES.each.perMillisecond);
  strictEqual(perMillisecond * 4, NAMESPACE_LINES.perMillisecond);
});
