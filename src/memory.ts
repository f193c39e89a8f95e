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
  timer = setTimeout(collect, QUIET_MILLISECONDS);
  Deno.unrefTimer(timer);
}

function collect(): void {
  v8.setFlagsFromString("--expose-gc");
  const collector: unknown = vm.runInNewContext("gc");
  if (typeof collector === "function") collector();
  further?.();
  further = undefined;
}

let timer: ReturnType<typeof setTimeout> | undefined;
let further: (() => void) | undefined;

const QUIET_MILLISECONDS = 1_000;
