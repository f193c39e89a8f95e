import { strictEqual } from "node:assert/strict";
import { Pace } from "./pace.ts";

/** Keeps the thread from going on, with or without using the processor. */
const waits = (milliseconds: number) =>
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
const works = (milliseconds: number) => {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
};

Deno.test("work that has used the processor is not done again soon, unless it must be", () => {
  const pace = new Pace();
  strictEqual(pace.run(false, () => works(20)), undefined);
  strictEqual(pace.run(false, () => "done"), undefined);
  strictEqual(pace.run(true, () => "done"), "done");
});

Deno.test("work that was kept waiting by others is done as often as any", () => {
  const pace = new Pace();
  pace.run(false, () => waits(300)); // by the clock of the wall not again for five minutes
  let done: string | undefined;
  for (let tries = 0; done === undefined && tries < 100; tries++) {
    waits(100);
    done = pace.run(false, () => "done");
  }
  strictEqual(done, "done");
});
