import { ok, strictEqual } from "node:assert/strict";
import { type Outcome, WorkQueue } from "./queue.ts";
import { delay } from "../waiting.ts";

Deno.test("never more at once than allowed, never one key twice at once, and all are done", async () => {
  let now = 0;
  let most = 0;
  const done: string[] = [];
  const busy = new Set<string>();
  const queue = make(async (key) => {
    ok(!busy.has(key));
    busy.add(key);
    most = Math.max(most, ++now);
    await delay(key === "k0" ? 30 : 2);
    now--;
    busy.delete(key);
    done.push(key);
    return "done";
  });
  for (let i = 0; i < 40; i++) queue.add(`k${i % 20}`, "owner");
  await delay(100);
  await queue.close();
  strictEqual(most, 3);
  strictEqual(new Set(done).size, 20);
});

Deno.test("a key that is added while it is worked on is worked on once more", async () => {
  let count = 0;
  const queue = make(async () => {
    if (++count === 1) queue.add("k", "owner");
    await delay(5);
    return "done";
  });
  queue.add("k", "owner");
  await delay(50);
  await queue.close();
  strictEqual(count, 2);
});

Deno.test("what is to be tried again comes back ever later, at once when added, and not when forgotten", async () => {
  const times: number[] = [];
  const queue = make(() => {
    times.push(performance.now());
    return Promise.resolve("again");
  });
  queue.add("k", "owner");
  await delay(300);
  const gaps = times.slice(1).map((time, i) => time - (times[i] ?? 0));
  ok(gaps.length >= 4 && gaps.length <= 8, `${gaps}`);
  ok((gaps.at(-1) ?? 0) > 2 * (gaps[0] ?? Infinity), `${gaps}`);
  const before = times.length;
  queue.add("k", "owner");
  await delay(3);
  strictEqual(times.length, before + 1);
  queue.forget("k");
  await delay(200);
  strictEqual(times.length, before + 1);
  queue.add("k", "owner");
  await queue.close(); // the sanitizers see that no timer is left
});

Deno.test("each owner gets his turn, however many keys another has added before", async () => {
  const done: string[] = [];
  const [gate, end] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const queue = make(async (key) => {
    await gate.promise;
    if (done.push(key) === 1_002) end.resolve();
    return "done";
  });
  for (let i = 0; i < 1_000; i++) queue.add(`greedy-${i}`, "greedy");
  for (const key of ["a", "b"]) queue.add(key, "modest");
  queue.add("c", "late");
  queue.forget("greedy-5");
  gate.resolve();
  await end.promise;
  await queue.close();
  const places = ["a", "b", "c"].map((key) => done.indexOf(key));
  ok(places.every((place) => place < 10), `${places}`);
  strictEqual(done.includes("greedy-5"), false);
});

function make(work: (key: string) => Promise<Outcome>): WorkQueue {
  return new WorkQueue({ concurrency: 3, backoff: { first: 10, most: 100 }, work });
}
