import { fstatSync } from "node:fs";
import { checked } from "./errno.ts";
import { libc } from "./libc.ts";

/**
 * From now on a write to the pipe or socket that this descriptor is fails with EAGAIN instead of
 * waiting for a reader. A file or a terminal stays as it is: others have it too. Throws a
 * SystemError.
 */
export function neverWaitsForReaders(descriptor: number): void {
  const kind = fstatSync(descriptor);
  if (!kind.isFIFO() && !kind.isSocket()) return;
  const flags = checked(libc.fcntl(descriptor, F_GETFL, 0n), "fcntl", "F_GETFL");
  checked(libc.fcntl(descriptor, F_SETFL, BigInt(flags | O_NONBLOCK)), "fcntl", "F_SETFL");
}

// asm-generic/fcntl.h
const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
