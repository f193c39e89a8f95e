import { checked } from "./errno.ts";
import { libc } from "./libc.ts";

/**
 * Keeps what is in this process' memory, keys among it, out of others' reach: no core is written
 * when it crashes, and who is not root cannot trace it or read its memory (prctl(2),
 * PR_SET_DUMPABLE). Throws a SystemError.
 */
export function keepMemoryPrivate(): void {
  const none = new Uint8Array(16); // struct rlimit { rlim_t rlim_cur, rlim_max; }
  checked(libc.setrlimit(RLIMIT_CORE, none), "setrlimit", "RLIMIT_CORE");
  checked(libc.prctl(PR_SET_DUMPABLE, 0n), "prctl", "PR_SET_DUMPABLE");
}

// sys/resource.h, sys/prctl.h
const RLIMIT_CORE = 4;
const PR_SET_DUMPABLE = 4;
