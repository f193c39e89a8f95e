import { clockMilliseconds } from "../native/clock.ts";

/**
 * What has to be added to the kernel's milliseconds since the machine started to get the wall
 * clock's now. It moves when the wall clock is set.
 */
export function bootTime(): number {
  return Date.now() - clockMilliseconds("boot");
}

/** Wall-clock milliseconds of the kernel's nanoseconds since the machine started. */
export function wallClock(nanoseconds: bigint, boot: number): number {
  return Math.round(boot + Number(nanoseconds / 1000n) / 1000);
}
