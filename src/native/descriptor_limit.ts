import { checked } from "./errno.ts";
import { libc } from "./libc.ts";

/**
 * Lets this process have `wanted` descriptors at least, which takes CAP_SYS_RESOURCE where the hard limit is lower.
 * Returns how many it may have, also when the kernel would not allow so many (fs.nr_open).
 */
export function allowDescriptors(wanted: number): number {
  // struct rlimit { rlim_t rlim_cur, rlim_max; } (bits/resource.h), both 64 bits.
  const limit = new BigUint64Array(2);
  const bytes = new Uint8Array(limit.buffer);
  checked(libc.getrlimit(RLIMIT_NOFILE, bytes), "getrlimit", "RLIMIT_NOFILE");
  const [now = 0n, most = 0n] = limit;
  if (now >= BigInt(wanted)) return Number(now);
  limit.fill(BigInt(wanted));
  if (most > BigInt(wanted)) limit[1] = most;
  return libc.setrlimit(RLIMIT_NOFILE, bytes) === 0 ? wanted : Number(now);
}

// sys/resource.h: the same number on x86-64 and arm64.
const RLIMIT_NOFILE = 7;
