import { strictEqual } from "node:assert/strict";
import { fairShare } from "./fair_share.ts";

Deno.test("whoever wants little has it, and the others share what is left", () => {
  for (
    const [wanted, capacity, share] of [
      [[], 10, Infinity],
      [[3, 3, 4], 10, Infinity],
      [[11], 10, 10],
      [[1, 1, 100], 10, 8],
      [[100, 1, 100], 10, 4],
      [[5, 5, 5], 10, 3],
      [[1, 1, 1], 2, 0],
    ] as [number[], number, number][]
  ) {
    strictEqual(fairShare(wanted, capacity), share, `${wanted} of ${capacity}`);
    const used = wanted.reduce((sum, want) => sum + Math.min(want, share), 0);
    strictEqual(used <= capacity, true, `${wanted} of ${capacity}`);
  }
});

Deno.test("one who wants much takes nothing from those who want less than their share", () => {
  for (let greedy = 1; greedy < 1e9; greedy *= 10) {
    strictEqual(fairShare([greedy, 40, 50], 150) >= 50, true, `${greedy}`);
  }
});
