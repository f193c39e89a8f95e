import { checked } from "../native/errno.ts";
import { libc } from "../native/libc.ts";

/**
 * What has to be added to the kernel's milliseconds since the machine started to get the wall clock's now. It moves when
 * the wall clock is set.
 */
export function bootTime(): number {
  checked(libc.clock_gettime(CLOCK_BOOTTIME, bytes), "clock_gettime", "CLOCK_BOOTTIME");
  const [seconds = 0n, nanoseconds = 0n] = timespec;
  return Date.now() - Number(seconds) * 1000 - Number(nanoseconds) / 1e6;
}

/** Wall-clock milliseconds of the kernel's nanoseconds since the machine started. */
export function wallClock(nanoseconds: bigint, boot: number): number {
  return Math.round(boot + Number(nanoseconds / 1000n) / 1000);
}

/** linux/time.h: as the programs' bpf_ktime_get_boot_ns(), it goes on while the machine is suspended. */
const CLOCK_BOOTTIME = 7;

/** struct timespec (time.h): seconds and nanoseconds. */
const timespec = new BigInt64Array(2);
const bytes = new Uint8Array(timespec.buffer);
