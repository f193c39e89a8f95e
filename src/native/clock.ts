import { checked } from "./errno.ts";
import { libc } from "./libc.ts";

/**
 * What one of the kernel's clocks says (clock_gettime(2)), in milliseconds. Throws a SystemError.
 */
export function clockMilliseconds(clock: keyof typeof CLOCKS): number {
  checked(libc.clock_gettime(CLOCKS[clock], bytes), "clock_gettime", `the clock "${clock}"`);
  const [seconds = 0n, nanoseconds = 0n] = timespec;
  return Number(seconds) * 1000 + Number(nanoseconds) / 1e6;
}

// linux/time.h
const CLOCK_THREAD_CPUTIME_ID = 3;
const CLOCK_BOOTTIME = 7;

const CLOCKS = {
  /** How long this thread has had a processor: it stands still while others have it. */
  thread: CLOCK_THREAD_CPUTIME_ID,
  /**
   * Since the machine started; as the programs' bpf_ktime_get_boot_ns(), it goes on while the
   * machine is suspended.
   */
  boot: CLOCK_BOOTTIME,
} as const;

/** struct timespec (time.h): seconds and nanoseconds. */
const timespec = new BigInt64Array(2);
const bytes = new Uint8Array(timespec.buffer);
