import assert from "node:assert/strict";
import type { ContenderName } from "./contenders/contender.ts";
import type { Measure, Runnable } from "./model.ts";
import { passes, runMeasure } from "./run.ts";

const OPTIONS = { rounds: 2, seconds: 1, pause: 0, progress: () => {} };

/** Contenders that note what happens to them. */
function scene(...names: ContenderName[]) {
  const story: string[] = [];
  const contenders = names.map((name) => ({
    name,
    restart: () => Promise.resolve(void story.push(`restart ${name}`)),
  }));
  return { story, contenders };
}

function measureOf(run: (name: ContenderName) => number): Measure<Runnable> {
  return { figures: [], run: ({ name }) => Promise.try(() => ({ value: run(name) })) };
}

Deno.test("contenders take turns forwards and backwards", () => {
  assert.equal(passes(["a", "b", "c"], 3).join(""), "abccbaabc");
});

Deno.test("each round has each contender's samples", async () => {
  const { contenders } = scene("direct", "gateway");
  const order: string[] = [];
  const measure = measureOf((name) => order.push(name));
  const { rounds, notes } = await runMeasure(measure, contenders, OPTIONS);
  assert.deepEqual(rounds.map((round) => Object.fromEntries(round)), [
    { direct: [{ value: 1 }, { value: 4 }], gateway: [{ value: 2 }, { value: 3 }] },
    { direct: [{ value: 5 }, { value: 8 }], gateway: [{ value: 6 }, { value: 7 }] },
  ]);
  assert.equal(notes.size, 0);
});

Deno.test("one that fails is tried again, then left out with its reason, and the others go on", async () => {
  const { story, contenders } = scene("gateway", "nginx", "stunnel");
  let stumbles = 2;
  const measure = measureOf((name) => {
    story.push(name);
    if (name === "nginx") throw new Error("no answer");
    if (name === "stunnel" && stumbles-- > 0) throw new Error("not yet");
    return 1;
  });
  const { rounds, notes } = await runMeasure(measure, contenders, OPTIONS);
  assert.deepEqual(Object.fromEntries(notes), { nginx: "failed: no answer" });
  assert.deepEqual(rounds.map((round) => [...round.keys()]), [
    ["gateway", "stunnel"],
    ["gateway", "stunnel"],
  ]);
  assert.equal(story.filter((each) => each === "nginx").length, 3);
  assert.deepEqual(story.filter((each) => each.startsWith("restart")), ["restart nginx"]);
});

Deno.test("a measure may leave some out, and may want fewer rounds and passes", async () => {
  const { contenders } = scene("direct", "gateway");
  const measure = {
    ...measureOf(() => 1),
    passes: 1,
    mostRounds: 1,
    absent: ({ name }: Runnable) => name === "direct" ? "–" : undefined,
  };
  const { rounds, notes } = await runMeasure(measure, contenders, OPTIONS);
  assert.deepEqual(rounds.map((round) => Object.fromEntries(round)), [{ gateway: [{ value: 1 }] }]);
  assert.deepEqual(Object.fromEntries(notes), { direct: "–" });
});

Deno.test("a measure's own contenders are closed at its end", async () => {
  const { contenders } = scene("gateway", "haproxy");
  let closed = 0;
  const measure: Measure<Runnable> = {
    ...measureOf(() => 1),
    open: (usual) =>
      Promise.resolve({
        contenders: usual.slice(1),
        notes: new Map([["gateway", "skipped"]]),
        [Symbol.asyncDispose]: () => Promise.resolve(void closed++),
      }),
  };
  const { rounds, notes } = await runMeasure(measure, contenders, OPTIONS);
  assert.deepEqual(rounds.map((round) => [...round.keys()]), [["haproxy"], ["haproxy"]]);
  assert.deepEqual(Object.fromEntries(notes), { gateway: "skipped" });
  assert.equal(closed, 1);
});
