import { ok, rejects, strictEqual } from "node:assert/strict";
import { until } from "../../tests/lab/delay.ts";
import { releaseMemorySoon } from "../memory.ts";
import { Pace } from "./pace.ts";

const never = new AbortController().signal;
const fail = () => Promise.reject(new Error("away"));

Deno.test("while the server is away one request goes out per interval, and at its return all at once", async () => {
  const pace = new Pace(100);
  let asked = 0;
  const waiting = Array.from({ length: 8 }, () => {
    const ask = () => ++asked < 3 ? fail() : Promise.resolve("answer");
    return pace.run(ask, never).catch(() => "failed");
  });
  const began = performance.now();
  const answers = await Promise.all(waiting);
  const took = performance.now() - began;
  strictEqual(answers.filter((answer) => answer === "failed").length, 2);
  ok(took >= 190 && took < 500, `${took} ms`);
});

Deno.test("who has given up waiting leaves nothing behind, however long the server is away", async () => {
  const pace = new Pace(60_000);
  await rejects(pace.run(fail, never), /away/);
  const signals: WeakRef<AbortSignal>[] = [];
  const giveUp = async () => {
    const impatient = new AbortController();
    signals.push(new WeakRef(impatient.signal));
    const waiting = pace.run(fail, impatient.signal);
    impatient.abort(new Error("tired"));
    await rejects(waiting, /tired/);
  };
  for (let count = 0; count < 100; count++) await giveUp();
  releaseMemorySoon();
  const left = () => signals.filter((signal) => signal.deref() !== undefined).length;
  await until(() => left() <= 1, 5_000, () => `${left()} of 100 signals are still held`);
});
