import { lstatSync } from "node:fs";
import { dirname } from "node:path";
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

/**
 * The kernel's 64-bit name of a cgroup, its directory's inode number (fs/kernfs). Throws a
 * SystemError, or an Error that says what to do when it is all of cgroup v2 that is gone.
 */
export function cgroupId(directory: string): bigint {
  return ofCgroup(directory, inodeOf);
}

/** A cgroup's directory held open. Throws as {@link cgroupId} does. */
export function openCgroupDirectory(directory: string): ReturnType<typeof openDirectory> {
  return ofCgroup(directory, openDirectory);
}

function ofCgroup<T>(directory: string, look: (directory: string) => T): T {
  try {
    return look(directory);
  } catch (cause) {
    const place = nearest(directory);
    if (isCgroup2(place)) throw cause;
    throw new Error(
      `cgroup v2 is not mounted on ${place} any more: mount -t cgroup2 none ${place}`,
      { cause },
    );
  }
}

/**
 * The inode number of what `path` leads to. Called for every pod every few seconds, as
 * {@link readLink} is: node:fs takes ten times as long. Throws a SystemError.
 */
export function inodeOf(path: string): bigint {
  checked(libc.statx(AT_FDCWD, cString(path), 0, STATX_INO, statx), "statx", path);
  return statxView.getBigUint64(32, true); // stx_ino, the same on every processor
}

/**
 * What a symbolic link says, as those in /proc do; undefined when it is gone, none, hidden from us,
 * or of 256 bytes or more.
 */
export function readLink(path: string): string | undefined {
  const length = Number(libc.readlink(cString(path), linkText, BigInt(linkText.length)));
  if (length < 0 || length === linkText.length) return undefined; // it may have been cut off
  return decoder.decode(linkText.subarray(0, length));
}

/**
 * Locks an open file or directory for one holder (flock(2)), or returns false when another has it.
 * It is free again when the descriptor is closed, by the end of the process at the latest. Throws a
 * SystemError.
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

/**
 * At once for whoever looks there, and for good when nobody has anything open there. Throws a
 * SystemError.
 */
export function unmount(path: string): void {
  checked(libc.umount2(cString(path), MNT_DETACH), "umount", path);
}

/**
 * Where a bpffs is mounted for `path`, which lies on none: sysfs lets nobody make directories, but
 * has this one for it.
 */
export function bpfMountPoint(path: string): string {
  const existing = nearest(path);
  return existing === "/sys/fs/bpf" ? existing : path;
}

/** `path`, or what there is above it. */
export function nearest(path: string): string {
  for (let existing = path;; existing = dirname(existing)) {
    if (lstatSync(existing, { throwIfNoEntry: false }) !== undefined) return existing;
  }
}

function fileSystemType(path: string): number {
  const statfs = new Uint8Array(120); // struct statfs: f_type at 0, a long (bits/statfs.h)
  checked(libc.statfs(cString(path), statfs), "statfs", path);
  return new DataView(statfs.buffer).getUint32(0, true);
}

// linux/magic.h, sys/file.h, sys/mount.h, asm-generic/fcntl.h; O_DIRECTORY is the one that differs
// between the two processors.
const BPF_FS_MAGIC = 0xcafe4a11;
const CGROUP2_SUPER_MAGIC = 0x63677270;
const LOCK_EX = 2;
const LOCK_NB = 4;
const MNT_DETACH = 2;
const AT_FDCWD = -100;
const STATX_INO = 0x100; // linux/stat.h
const O_RDONLY = 0;
const O_CLOEXEC = 0o2000000;
const O_DIRECTORY = Deno.build.arch === "aarch64" ? 0o40000 : 0o200000;

/** For every call: none is left before it has been read. */
const statx = new Uint8Array(256);
const statxView = new DataView(statx.buffer);
const linkText = new Uint8Array(256);
const decoder = new TextDecoder();
