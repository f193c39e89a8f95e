import { strictEqual } from "node:assert/strict";
import { Load } from "./load.ts";

/**
 * Workers that share a clock, which `move` sets forward: so many MB in so many milliseconds each.
 */
function workers(count: number) {
  let now = 1_000_000;
  const memory = Load.memoryFor(count);
  const loads = Array.from({ length: count }, (_, index) => new Load(memory, index, () => now));
  return {
    loads,
    move(milliseconds: number, megabytes: number[]) {
      for (let passed = 0; passed < milliseconds; passed++) {
        now++;
        megabytes.forEach((amount, index) => loads[index]?.add(amount * 1e6 / milliseconds));
      }
    },
    lighter: (worker: number) => loads[worker]?.lighter(),
  };
}

Deno.test("nobody passes a connection on while nobody is busy", () => {
  const { lighter, move } = workers(2);
  strictEqual(lighter(0), undefined);
  move(1_000, [30, 0]); // 30 MB/s
  strictEqual(lighter(0), undefined);
});

Deno.test("a busy worker passes connections to the one that moves least", () => {
  const { lighter, move } = workers(3);
  move(200, [100, 20, 0]);
  strictEqual(lighter(0), 2);
  strictEqual(lighter(1), 2);
  strictEqual(lighter(2), undefined);
  move(200, [100, 20, 30]);
  strictEqual(lighter(0), 1);
});

Deno.test("but not to one that moves more than half as much", () => {
  const { lighter, move } = workers(2);
  move(200, [100, 60]);
  strictEqual(lighter(0), undefined);
  strictEqual(lighter(1), undefined);
});

Deno.test("what was long ago is forgotten", () => {
  const { lighter, move } = workers(2);
  move(200, [100, 0]);
  strictEqual(lighter(0), 1);
  move(150, [0, 0]);
  strictEqual(lighter(0), undefined);
  // What was moved in all that time is no burst of now.
  move(100, [4.3, 0]);
  move(50, [4.3, 0]);
  strictEqual(lighter(0), 1);
});

Deno.test("one worker alone keeps everything", () => {
  const { lighter, move } = workers(1);
  move(200, [100]);
  strictEqual(lighter(0), undefined);
});

Deno.test("a busy worker gives idle tunnels up one after the other", () => {
  const { loads: [busy], move } = workers(2);
  strictEqual(busy?.shouldShed, false);
  move(200, [100, 0]);
  strictEqual(busy?.shouldShed, true);
  strictEqual(busy?.shouldShed, false);
  move(60, [30, 0]);
  strictEqual(busy?.shouldShed, true);
  move(200, [0, 0]);
  strictEqual(busy?.shouldShed, false);
});
