import { readFileSync } from "node:fs";

/**
 * What has to be added to the kernel's milliseconds since the machine started to get the wall clock's now, give or take ten
 * milliseconds. It moves when the wall clock is set.
 */
export function bootTime(): number {
  const [seconds = ""] = readFileSync("/proc/uptime", "utf8").split(" ");
  return Date.now() - Number(seconds) * 1000;
}

/** Wall-clock milliseconds of the kernel's nanoseconds since the machine started. */
export function wallClock(nanoseconds: bigint, boot: number): number {
  return Math.round(boot + Number(nanoseconds / 1000n) / 1000);
}
