import { constants } from "node:os";
import { libc } from "./libc.ts";

// SAFETY: __errno_location() is valid and constant for the calling thread's life (errno(3)); each
// worker evaluates this module on its own thread.
const location = libc.__errno_location();
if (location === null) throw new Error("libc: __errno_location() returned NULL");
const view = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(location, 4));

// Backwards, so that the first of two names stays: EAGAIN, not EWOULDBLOCK.
const names = new Map<number, string>(
  Object.entries(constants.errno).reverse().map(([name, number]) => [number, name]),
);

/**
 * The calling thread's errno. Right only on the line after the failing call: any Deno call may
 * overwrite it.
 */
export function errno(): number {
  return view[0] ?? 0;
}

/** The symbol of an errno number, such as `ECONNREFUSED`. */
export function errnoName(number: number): string {
  return names.get(number) ?? `errno ${number}`;
}

/** A system or library call that failed: which call, on what, and why. */
export class SystemError extends Error {
  constructor(readonly call: string, readonly errno: number, about: string) {
    super(`${call} failed with ${errnoName(errno)}: ${about}`);
    this.name = "SystemError";
  }
}

/** What there is too little of, by the errno of a call that fails for it, and what to do. */
const SHORTAGES: ReadonlyMap<string, string> = new Map([
  ["EMFILE", "this process has no file descriptor left: raise its limit (ulimit -n)"],
  ["ENFILE", "the node has no file descriptor left: raise fs.file-max"],
  ["ENOMEM", "there is no memory left"],
  ["ENOBUFS", "there is no memory left for sockets"],
]);

/** Whether a call has failed for want of descriptors or memory. */
export function isShortage(errno: number): boolean {
  return SHORTAGES.has(errnoName(errno));
}

/** Of what there was too little, when that is why a call of libc's or node's has failed. */
export function shortage(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const name = error instanceof SystemError
    ? errnoName(error.errno)
    : (error as NodeJS.ErrnoException).code ?? "";
  const meaning = SHORTAGES.get(name);
  return meaning === undefined ? undefined : `${name}: ${meaning}`;
}

/** `result` of a libc call that reports failure as -1, or a thrown {@link SystemError}. */
export function checked(result: number, call: string, about: string): number {
  if (result === -1) throw new SystemError(call, errno(), about);
  return result;
}

export const EACCES = constants.errno.EACCES;
export const EAGAIN = constants.errno.EAGAIN;
export const EADDRINUSE = constants.errno.EADDRINUSE;
export const EADDRNOTAVAIL = constants.errno.EADDRNOTAVAIL;
export const EEXIST = constants.errno.EEXIST;
export const ECONNREFUSED = constants.errno.ECONNREFUSED;
export const ECONNRESET = constants.errno.ECONNRESET;
export const EHOSTUNREACH = constants.errno.EHOSTUNREACH;
export const EINPROGRESS = constants.errno.EINPROGRESS;
export const EINTR = constants.errno.EINTR;
export const EINVAL = constants.errno.EINVAL;
export const ELOOP = constants.errno.ELOOP;
export const EMFILE = constants.errno.EMFILE;
export const ENETUNREACH = constants.errno.ENETUNREACH;
export const ENOENT = constants.errno.ENOENT;
export const ENOSPC = constants.errno.ENOSPC;
export const ENOTDIR = constants.errno.ENOTDIR;
export const EOPNOTSUPP = constants.errno.EOPNOTSUPP;
export const EPERM = constants.errno.EPERM;
export const EPIPE = constants.errno.EPIPE;
export const ETIMEDOUT = constants.errno.ETIMEDOUT;
