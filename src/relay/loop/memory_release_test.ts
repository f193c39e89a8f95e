import { strictEqual } from "node:assert/strict";
import { Deadlines } from "./deadlines.ts";
import { MemoryRelease } from "./memory_release.ts";

/** Opens and closes tunnels on a clock that stands still until `later`. */
class Bench {
  clock = 0;
  releases = 0;
  readonly deadlines = new Deadlines(() => this.clock);
  readonly memory = new MemoryRelease(this.deadlines, () => this.releases++);

  move(by: number): this {
    for (let count = 0; count < by; count++) this.memory.opened();
    for (let count = 0; count > by; count--) this.memory.closed();
    return this;
  }

  /** How often memory has been released two seconds later. */
  later(): number {
    this.clock += 2_000;
    this.deadlines.run();
    return this.releases;
  }
}

Deno.test("a flood's end is noticed once, a moment after its last one has gone", () => {
  const bench = new Bench().move(5_000).move(-4_999);
  strictEqual(bench.releases, 0);
  strictEqual(bench.later(), 1);
  strictEqual(bench.move(-1).later(), 1);
});

Deno.test("neither a few that go, nor a small part of many, releases anything", () => {
  strictEqual(new Bench().move(255).move(-255).later(), 0);
  strictEqual(new Bench().move(10_000).move(-4_000).later(), 0);
});

Deno.test("the next flood counts from where the last one has left it", () => {
  const bench = new Bench().move(1_000).move(-900);
  strictEqual(bench.later(), 1);
  strictEqual(bench.move(900).move(-900).later(), 2);
});
