import { statSync } from "node:fs";
import { checked, EAGAIN, errno, SystemError } from "./errno.ts";
import { cString, libc } from "./libc.ts";

/** A directory held open. Throws a SystemError. */
export function openDirectory(path: string): { readonly descriptor: number } & Disposable {
  const descriptor = checked(
    libc.open(cString(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC),
    "open",
    path,
  );
  return { descriptor, [Symbol.dispose]: () => void libc.close(descriptor) };
}

/** Whether `path` lies on a bpffs, where eBPF objects can be pinned. Throws a SystemError. */
export function isBpfFileSystem(path: string): boolean {
  return fileSystemType(path) === BPF_FS_MAGIC;
}

/** Whether `path` lies on cgroup v2. Throws a SystemError. */
export function isCgroup2(path: string): boolean {
  return fileSystemType(path) === CGROUP2_SUPER_MAGIC;
}

/** The kernel's 64-bit name of a cgroup, its directory's inode number (fs/kernfs). Throws when there is none. */
export function cgroupId(directory: string): bigint {
  return statSync(directory, { bigint: true }).ino;
}

/**
 * Locks an open file or directory for one holder (flock(2)), or returns false when another has it. It is free again when
 * the descriptor is closed, by the end of the process at the latest. Throws a SystemError.
 */
export function tryLock(descriptor: number, about: string): boolean {
  if (libc.flock(descriptor, LOCK_EX | LOCK_NB) === 0) return true;
  const code = errno();
  if (code === EAGAIN) return false;
  throw new SystemError("flock", code, about);
}

/** Mounts a new bpffs, root's alone. Throws a SystemError. */
export function mountBpfFileSystem(path: string): void {
  checked(
    libc.mount(cString("bpf"), cString(path), cString("bpf"), 0n, cString("mode=0700")),
    "mount bpf",
    path,
  );
}

/** At once for whoever looks there, and for good when nobody has anything open there. Throws a SystemError. */
export function unmount(path: string): void {
  checked(libc.umount2(cString(path), MNT_DETACH), "umount", path);
}

function fileSystemType(path: string): number {
  const statfs = new Uint8Array(120); // struct statfs: f_type at 0, a long (bits/statfs.h)
  checked(libc.statfs(cString(path), statfs), "statfs", path);
  return new DataView(statfs.buffer).getUint32(0, true);
}

// linux/magic.h, sys/file.h, sys/mount.h, asm-generic/fcntl.h; O_DIRECTORY is the one that differs between the two processors.
const BPF_FS_MAGIC = 0xcafe4a11;
const CGROUP2_SUPER_MAGIC = 0x63677270;
const LOCK_EX = 2;
const LOCK_NB = 4;
const MNT_DETACH = 2;
const O_RDONLY = 0;
const O_CLOEXEC = 0o2000000;
const O_DIRECTORY = Deno.build.arch === "aarch64" ? 0o40000 : 0o200000;
