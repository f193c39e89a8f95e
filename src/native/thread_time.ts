import { checked } from "./errno.ts";
import { libc } from "./libc.ts";

/** How long this thread has had a processor, in milliseconds: it stands still while others have it. */
export function threadCpuMilliseconds(): number {
  checked(libc.clock_gettime(CLOCK_THREAD_CPUTIME_ID, bytes), "clock_gettime", "thread");
  return Number(time[0]) * 1_000 + Number(time[1]) / 1_000_000;
}

/** `struct timespec`. */
const time = new BigInt64Array(2);
const bytes = new Uint8Array(time.buffer);

// linux/time.h
const CLOCK_THREAD_CPUTIME_ID = 3;
