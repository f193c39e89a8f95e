import v8 from "node:v8";
import vm from "node:vm";

/**
 * Gives back, a moment after the last call, what a large piece of work has left on the heap. V8
 * collects when the heap has grown by a factor, so that the garbage of reading a large cluster once
 * would stay for days.
 *
 * @param also is called after that, once, also when a later call does not name it.
 */
export function releaseMemorySoon(also?: () => void): void {
  further = also ?? further;
  clearTimeout(timer);
  timer = setTimeout(collectAtLast, QUIET_MILLISECONDS);
  Deno.unrefTimer(timer);
}

/**
 * To be called for each text that has been read and is garbage by now. Large ones, one after the
 * other, would fill a container before V8 finds it worth its time to collect: it is made to, now
 * and again.
 */
export function noteGarbage(length: number): void {
  if (length < LARGE_TEXT) return;
  garbage += length;
  if (garbage < MOST_GARBAGE) return;
  garbage = 0;
  collect();
}

let garbage = 0;

function collectAtLast(): void {
  collect();
  further?.();
  further = undefined;
}

function collect(): void {
  collector ??= exposedCollector();
  collector();
}

function exposedCollector(): () => void {
  v8.setFlagsFromString("--expose-gc");
  const gc: unknown = vm.runInNewContext("gc");
  return typeof gc === "function" ? () => void gc() : () => {};
}

let collector: (() => void) | undefined;

let timer: ReturnType<typeof setTimeout> | undefined;
let further: (() => void) | undefined;

const QUIET_MILLISECONDS = 1_000;

/** In characters: smaller ones are collected in good time. */
const LARGE_TEXT = 256 * 2 ** 10;
/** It takes some 10 ms in a small process to collect, and these some 100 to be read. */
const MOST_GARBAGE = 32 * 2 ** 20;
