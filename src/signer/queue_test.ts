import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
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

Deno.test(
  "what is to be tried again comes back ever later, at once when added, and not when forgotten",
  { sanitizeOps: true },
  async () => {
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
    await queue.close(); // the sanitizer sees that no timer is left
  },
);

Deno.test("a key that is worked on and added again keeps no other waiting", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const begun: string[] = [];
  const queue = make(async (key) => {
    begun.push(key);
    if (key === "slow") await promise;
    return "done";
  });
  for (const key of ["slow", "slow", "other"]) queue.add(key, "owner");
  deepStrictEqual(begun, ["slow", "other"]);
  resolve();
  await queue.close();
});

Deno.test("a wait grows to its bound, and is short again after a success or when the key is forgotten", async () => {
  using timers = new Timers();
  let outcome: Outcome = "again";
  let works = 0;
  const queue = make(() => {
    works++;
    return Promise.resolve(outcome);
  });
  queue.add("k", "owner");
  const tried = async (times: number) => {
    const before = timers.delays.length;
    while (timers.delays.length < before + times) await timers.turn();
  };
  await tried(12);
  ok(Math.max(...timers.delays) <= 110, `${timers.delays}`);
  ok((timers.delays.at(-1) ?? 0) >= 90, `${timers.delays}`);
  outcome = "done";
  for (const before = works; works === before;) await timers.turn();
  await timers.turn();
  outcome = "again";
  queue.add("k", "owner");
  await timers.turn();
  ok((timers.delays.at(-1) ?? Infinity) <= 11, "after a success");
  await tried(6);
  queue.forget("k");
  queue.add("k", "owner");
  await timers.turn();
  ok((timers.delays.at(-1) ?? Infinity) <= 11, "forgotten");
  await queue.close();
});

Deno.test("who is added while he fails is tried at once, and not a second time later", async () => {
  using timers = new Timers();
  let count = 0;
  const queue = make(async () => {
    if (++count > 1) return "done";
    await Promise.resolve();
    queue.add("k", "owner");
    return "again";
  });
  queue.add("k", "owner");
  while (count < 2) await timers.turn();
  deepStrictEqual(timers.delays, []);
  await queue.close();
});

Deno.test("a queue that is closed begins nothing more, whatever was under way or comes", async () => {
  using timers = new Timers();
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  let count = 0;
  const queue = make(() => {
    count++;
    return promise;
  });
  queue.add("k", "owner");
  const closing = queue.close();
  queue.add("late", "owner");
  resolve("again");
  await closing;
  await timers.turn();
  deepStrictEqual([count, timers.delays], [1, []]);
});

/** Timers that end at once, and how long they should have taken. */
class Timers implements Disposable {
  readonly #real = globalThis.setTimeout;
  readonly delays: number[] = [];

  constructor() {
    globalThis.setTimeout = ((end: () => void, milliseconds = 0) => {
      this.delays.push(milliseconds);
      return this.#real(end, 0);
    }) as typeof setTimeout;
  }

  turn(): Promise<void> {
    return new Promise((resolve) => this.#real(resolve, 0));
  }

  [Symbol.dispose](): void {
    globalThis.setTimeout = this.#real;
  }
}

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
