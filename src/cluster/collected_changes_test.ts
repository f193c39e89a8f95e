import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { until } from "../../tests/lab/delay.ts";
import { CollectedChanges, restAfter } from "./collected_changes.ts";

Deno.test("what is changed all the time takes a fifth of a processor, and nobody waits for long", () => {
  strictEqual(restAfter(0), 20);
  strictEqual(restAfter(5), 20);
  strictEqual(restAfter(50), 200, "50 of 250 milliseconds");
  strictEqual(restAfter(5_000), 300);
});

Deno.test("changes that follow closely are told together, the last one too, and none after the end", async () => {
  let value = 0;
  const told: number[] = [];
  const changes = new CollectedChanges(() => {
    told.push(value);
    if (value === 2) throw new Error("planted");
  });
  changes.changed();
  deepStrictEqual(told, [], "nobody has begun");
  changes.begin();
  for (value = 1; value < 100; value++) changes.changed();
  deepStrictEqual(told, [0]);
  await until(() => told.length === 2, 5_000, () => `${told}`);
  deepStrictEqual(told, [0, 100]);
  value = 2;
  changes.changed();
  await until(() => told.length === 3, 5_000, () => `${told}`);
  value = 3;
  changes.changed();
  await until(() => told.length === 4, 5_000, () => "what it throws ends nothing");
  changes.changed();
  changes.end();
  changes.changed();
  await new Promise((resolve) => setTimeout(resolve, 100));
  strictEqual(told.length, 4);
});
