import { ok, rejects, strictEqual } from "node:assert/strict";
import { jittered, pause } from "./waiting.ts";

Deno.test("a pause ends by its time, by a waker or by the signal, and leaves nothing behind", {
  sanitizeOps: true,
}, async () => {
  const { signal } = new AbortController();
  const wakers = new Set<() => void>();
  await pause(1, signal, wakers);
  strictEqual(wakers.size, 0);
  const woken = pause(60_000, signal, wakers);
  for (const wake of wakers) wake();
  await woken;
  const stop = new AbortController();
  const stopped = rejects(pause(60_000, stop.signal, wakers), /enough/);
  stop.abort(new Error("enough"));
  await stopped;
  strictEqual(wakers.size, 0); // the sanitizer sees that no timer is left
  await rejects(pause(0, stop.signal), /enough/);
});

Deno.test("a time with jitter stays within its part, and is spread over it", () => {
  const times = Array.from({ length: 1_000 }, () => jittered(1_000, 0.5));
  ok(times.every((time) => time >= 500 && time <= 1_500));
  ok(Math.min(...times) < 600 && Math.max(...times) > 1_400);
  ok(Math.abs(jittered(1_000) - 1_000) <= 100);
});
