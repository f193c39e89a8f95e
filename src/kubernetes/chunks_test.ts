import { deepStrictEqual, rejects } from "node:assert/strict";
import { delay } from "../waiting.ts";
import { chunksOf } from "./chunks.ts";

Deno.test("a body ends with its signal, though fetch has forgotten that, and is told to send no more", async () => {
  let isCancelled = false;
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    start: (controller) => controller.enqueue(new Uint8Array(3)),
    cancel: () => void (isCancelled = true),
  });
  const stop = new AbortController();
  const sizes: number[] = [];
  const read = async () => {
    for await (const { length } of chunksOf(new Response(body), stop.signal)) sizes.push(length);
  };
  const ended = rejects(read(), /told to end/);
  await delay(10);
  stop.abort(new Error("told to end"));
  await ended;
  deepStrictEqual([sizes, isCancelled], [[3], true]);
});

Deno.test("whoever has had enough of a body leaves the rest", async () => {
  let isCancelled = false;
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull: (controller) => controller.enqueue(new Uint8Array(3)),
    cancel: () => void (isCancelled = true),
  });
  for await (const _ of chunksOf(new Response(body), new AbortController().signal)) break;
  deepStrictEqual(isCancelled, true);
});
