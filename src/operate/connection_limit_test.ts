import { deepStrictEqual, match, ok } from "node:assert/strict";
import { fittingConnections, limitConnections } from "./connection_limit.ts";

Deno.test("no more connections than there are descriptors for, and some are kept for the rest", () => {
  const cases = [
    // wanted, workers, allowed
    [25_000, 2, 1_000_000, 25_000],
    [25_000, 2, 50_000 + 8_192 + 2 * 4_096, 25_000],
    [25_000, 2, 50_000 + 8_192 + 2 * 4_096 - 1, 24_999],
    [25_000, 4, 99_000, 25_000],
    [50_000, 4, 99_000, (99_000 - 8_192 - 4 * 4_096) / 2],
    [25_000, 2, 20_000, 7_500],
    [25_000, 2, 1_024, 384],
    [100, 2, 1_024, 100],
    [100, 64, 1, 1],
  ] as const;
  const found = cases.map(([wanted, workers, allowed]) =>
    fittingConnections(wanted, workers, allowed)
  );
  deepStrictEqual(found, cases.map(([, , , expected]) => expected));
});

Deno.test("who wants more than the kernel allows gets what it does, and is told what would be needed", () => {
  deepStrictEqual(limitConnections(1, 1), { connections: 1, problem: undefined });
  const { connections, problem } = limitConnections(10_000_000_000, 2);
  ok(connections >= 1 && connections < 10_000_000_000);
  // Two descriptors each, and those for the rest.
  match(
    problem ?? "",
    /^\d+ connections at most, not 10000000000: \d+ .* 20000016384 would be needed/,
  );
});
