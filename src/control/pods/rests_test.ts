import { deepStrictEqual, throws } from "node:assert/strict";
import { Rests } from "./rests.ts";

class Clocks {
  now = 1_000;
  used = 0;
  readonly rests = new Rests(() => this.now, () => this.used);

  try(pod: string, milliseconds: number): void {
    this.rests.measure(pod, () => void (this.used += milliseconds));
  }

  resting(...pods: string[]): boolean[] {
    return pods.map((pod) => this.rests.isResting(pod));
  }
}

Deno.test("a pod whose try takes long rests twenty times as long, others do not", () => {
  const clocks = new Clocks();
  clocks.try("usual", 19);
  clocks.try("costly", 100);
  deepStrictEqual(clocks.resting("usual", "costly", "unknown"), [false, true, false]);
  clocks.now += 1_999;
  deepStrictEqual(clocks.resting("costly"), [true]);
  clocks.now += 1;
  deepStrictEqual(clocks.resting("costly"), [false]);
  clocks.try("costly", 1);
  deepStrictEqual(clocks.resting("costly"), [false], "it costs no more than others now");
});

Deno.test("many costly pods together take no more than one", () => {
  const clocks = new Clocks();
  for (let count = 0; count < 10; count++) clocks.try(`pod-${count}`, 100);
  clocks.now += 10 * 2_000 - 1;
  deepStrictEqual(clocks.resting("pod-9"), [true]);
  for (let count = 0; count < 9; count++) clocks.rests.forget(`pod-${count}`);
  clocks.now += 1;
  clocks.try("pod-9", 100);
  clocks.now += 2_000;
  deepStrictEqual(clocks.resting("pod-9"), [false], "who is gone is counted no more");
});

Deno.test("a try that fails counts like another", () => {
  const clocks = new Clocks();
  const fails = () => {
    clocks.used += 50;
    throw new Error("no");
  };
  throws(() => clocks.rests.measure("pod", fails), /no/);
  deepStrictEqual(clocks.resting("pod"), [true]);
});
