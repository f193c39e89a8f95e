import assert from "node:assert/strict";
import type { ContenderName } from "./contenders/contender.ts";
import type { Figure, Outcome } from "./model.ts";
import { median, spread, standings } from "./statistics.ts";

const RATE: Figure = { key: "rate", name: "rate", unit: "/s", better: "more" };

/** Each round: contender, then the values of its runs. */
function outcomeOf(...rounds: Partial<Record<ContenderName, number[]>>[]): Outcome {
  const samples = (values: number[]) => values.map((rate) => ({ rate }));
  return {
    rounds: rounds.map((round) =>
      new Map(
        Object.entries(round).map(([name, values]) => [
          name as ContenderName,
          samples(values),
        ]),
      )
    ),
    notes: new Map(),
  };
}

Deno.test("the median is the middle value, or the mean of the two in the middle", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.equal(median([7]), 7);
  assert(Number.isNaN(median([])));
});

Deno.test("a spread has the least and the most, and nothing has none", () => {
  assert.deepEqual(spread([2, 9, 1]), { median: 2, least: 1, most: 9 });
  assert.equal(spread([]), undefined);
});

Deno.test("ratios are of one round, so that drift between rounds does not count", () => {
  const outcome = outcomeOf(
    { gateway: [10, 30], haproxy: [10, 10] },
    { gateway: [200], haproxy: [100] },
    { gateway: [3], haproxy: [1] },
  );
  const found = standings(RATE, outcome, ["gateway", "haproxy"]);
  assert.deepEqual(found.get("gateway")?.ratio, { median: 2, least: 2, most: 3 });
  assert.equal(found.get("gateway")?.value, 20);
  assert.equal(found.get("haproxy")?.ratio?.median, 1);
});

Deno.test("what is added is over direct's value of the same round", () => {
  const outcome = outcomeOf(
    { direct: [10], gateway: [15], haproxy: [20] },
    { direct: [30], gateway: [34], haproxy: [38] },
  );
  const found = standings({ ...RATE, added: true }, outcome, ["direct", "gateway", "haproxy"]);
  assert.equal(found.get("gateway")?.value, 4.5);
  assert.equal(found.get("gateway")?.ratio?.median, 0.5);
  assert.deepEqual(found.get("direct"), { note: "–" });
});

Deno.test("a round in which nothing was added gives no ratio", () => {
  const outcome = outcomeOf(
    { direct: [10], gateway: [9], haproxy: [20] },
    { direct: [10], gateway: [12], haproxy: [14] },
  );
  const found = standings({ ...RATE, added: true }, outcome, ["gateway"]);
  assert.deepEqual(found.get("gateway")?.ratio, { median: 0.5, least: 0.5, most: 0.5 });
});

Deno.test("another baseline, and none", () => {
  const outcome = outcomeOf({ direct: [10], gateway: [11] });
  const names: ContenderName[] = ["direct", "gateway"];
  assert.equal(standings(RATE, outcome, names).get("gateway")?.ratio, undefined);
  const toDirect = standings({ ...RATE, baseline: "direct" }, outcome, names);
  assert.equal(toDirect.get("gateway")?.ratio?.median, 1.1);
});

Deno.test("what failed from the beginning has its reason, what failed later its value too", () => {
  const outcome = {
    ...outcomeOf({ gateway: [1], haproxy: [1] }),
    notes: new Map<ContenderName, string>([["nginx", "failed"], ["gateway", "gave up"]]),
  };
  const found = standings(RATE, outcome, ["gateway", "nginx", "stunnel"]);
  assert.deepEqual(found.get("nginx"), { note: "failed" });
  assert.deepEqual(found.get("stunnel"), { note: "–" });
  assert.equal(found.get("gateway")?.value, 1);
  assert.equal(found.get("gateway")?.note, "gave up");
});
