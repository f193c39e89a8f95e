import v8 from "node:v8";
import vm from "node:vm";
import { releaseFreedMemory } from "./native/heap.ts";

/**
 * Gives back, a moment after the last call, what a large piece of work has left on the heap. V8
 * collects when the heap has grown by a factor, so that the garbage of reading a large cluster once
 * would stay for days.
 */
export function releaseMemorySoon(): void {
  clearTimeout(timer);
  timer = setTimeout(collect, QUIET_MILLISECONDS);
  Deno.unrefTimer(timer);
}

function collect(): void {
  v8.setFlagsFromString("--expose-gc");
  const collector: unknown = vm.runInNewContext("gc");
  if (typeof collector === "function") collector();
  releaseFreedMemory();
}

let timer: ReturnType<typeof setTimeout> | undefined;

const QUIET_MILLISECONDS = 1_000;
