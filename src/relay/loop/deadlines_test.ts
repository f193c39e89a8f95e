import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { Deadlines, type Expiring } from "./deadlines.ts";

/** Deadlines on a clock that the test moves, and what has expired on it. */
class Bench {
  clock = 1000;
  readonly expired: string[] = [];
  readonly deadlines = new Deadlines(() => this.clock);

  target(name: string, then: () => void = () => {}): Expiring {
    return {
      expired: () => {
        this.expired.push(name);
        then();
      },
    };
  }

  /** Moves the clock and says who expired. */
  after(milliseconds: number): string[] {
    this.clock += milliseconds;
    this.deadlines.run();
    return this.expired.splice(0);
  }
}

Deno.test("a target expires once, at its time and not before", () => {
  const bench = new Bench();
  bench.deadlines.arm(bench.target("a"), 100);
  deepStrictEqual(bench.after(99.9), []);
  deepStrictEqual(bench.after(0.1), ["a"]);
  deepStrictEqual(bench.after(1000), []);
  strictEqual(bench.deadlines.wait(), -1);
});

Deno.test("arming again counts anew, and puts the target behind those armed meanwhile", () => {
  const bench = new Bench();
  const a = bench.target("a");
  bench.deadlines.arm(a, 100);
  bench.clock += 50;
  bench.deadlines.arm(bench.target("b"), 100);
  bench.clock += 20;
  bench.deadlines.arm(a, 100);
  deepStrictEqual(bench.after(79), []);
  deepStrictEqual(bench.after(1), ["b"]);
  deepStrictEqual(bench.after(20), ["a"]);
});

Deno.test("a disarmed target never expires, whichever times it was armed for", () => {
  const bench = new Bench();
  const a = bench.target("a");
  bench.deadlines.arm(a, 10);
  bench.deadlines.arm(a, 20);
  bench.deadlines.arm(bench.target("b"), 20);
  bench.deadlines.disarm(a);
  bench.deadlines.disarm(a);
  deepStrictEqual(bench.after(30), ["b"]);
});

Deno.test("the wait is for the earliest of all, in whole milliseconds that are never too few", () => {
  const bench = new Bench();
  strictEqual(bench.deadlines.wait(), -1, "nothing to wait for");
  bench.deadlines.arm(bench.target("slow"), 500);
  strictEqual(bench.deadlines.wait(), 500);
  bench.clock += 450;
  const fast = bench.target("fast");
  bench.deadlines.arm(fast, 10);
  strictEqual(bench.deadlines.wait(), 10);
  bench.clock += 0.4;
  strictEqual(bench.deadlines.wait(), 10, "9.6 is rounded up");
  bench.deadlines.disarm(fast);
  strictEqual(bench.deadlines.wait(), 50);
  bench.clock += 1000;
  strictEqual(bench.deadlines.wait(), 0, "overdue: not at all");
  deepStrictEqual(bench.after(0), ["slow"]);
});

Deno.test("an expiry may arm and disarm, itself and others", () => {
  const bench = new Bench();
  const { deadlines } = bench;
  const victim = bench.target("victim");
  const again = bench.target("again", () => deadlines.arm(again, 10));
  deadlines.arm(bench.target("killer", () => deadlines.disarm(victim)), 10);
  deadlines.arm(victim, 10);
  deadlines.arm(again, 10);
  deepStrictEqual(bench.after(10), ["killer", "again"]);
  deepStrictEqual(bench.after(9), []);
  deepStrictEqual(bench.after(1), ["again"]);
});

Deno.test("a target that is overdue expires once per arming, however late", () => {
  const bench = new Bench();
  const again = bench.target("again", () => bench.deadlines.arm(again, 10));
  bench.deadlines.arm(again, 10);
  deepStrictEqual(bench.after(1000), ["again"]);
});

Deno.test("targets that are armed again and again expire once, in order, and leave no gaps", () => {
  const bench = new Bench();
  const targets = Array.from({ length: 10_000 }, (_, index) => bench.target(`${index}`));
  for (let round = 0; round < 3; round++) {
    for (const target of targets) {
      bench.deadlines.arm(target, 100);
      strictEqual(bench.deadlines.wait(), 100);
    }
  }
  for (const target of targets.slice(0, 5_000)) bench.deadlines.disarm(target);
  strictEqual(bench.after(100).length, 5_000);
  strictEqual(bench.deadlines.wait(), -1);
});

Deno.test("a target that throws fails by itself, and the others expire", () => {
  const bench = new Bench();
  const failures: unknown[] = [];
  const broken = bench.target("broken", () => {
    throw new Error("a bug");
  });
  bench.deadlines.arm({ ...broken, failed: (error) => failures.push(error) }, 10);
  bench.deadlines.arm(bench.target("b"), 10);
  deepStrictEqual(bench.after(10), ["broken", "b"]);
  deepStrictEqual(failures.map(String), ["Error: a bug"]);
});
