import { readFileSync } from "node:fs";
import { checked } from "./errno.ts";
import { libc } from "./libc.ts";

/**
 * Lets this process have `wanted` descriptors, which takes CAP_SYS_RESOURCE where the hard limit is
 * lower, or as many as it may. Returns how many it may have.
 */
export function allowDescriptors(wanted: number): number {
  // struct rlimit { rlim_t rlim_cur, rlim_max; } (bits/resource.h), both 64 bits.
  const limit = new BigUint64Array(2);
  const bytes = new Uint8Array(limit.buffer);
  checked(libc.getrlimit(RLIMIT_NOFILE, bytes), "getrlimit", "RLIMIT_NOFILE");
  const [now = 0n, hard = 0n] = limit;
  // fs.nr_open: what nobody may go beyond.
  const most = BigInt(readFileSync("/proc/sys/fs/nr_open", "utf8").trim());
  for (const each of [least(BigInt(wanted), most), hard]) {
    if (each <= now) continue;
    limit[0] = each;
    limit[1] = each > hard ? each : hard;
    if (libc.setrlimit(RLIMIT_NOFILE, bytes) === 0) return Number(each);
  }
  return Number(now);
}

function least(one: bigint, other: bigint): bigint {
  return one < other ? one : other;
}

// sys/resource.h: the same number on x86-64 and arm64.
const RLIMIT_NOFILE = 7;
