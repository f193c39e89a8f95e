import { statSync } from "node:fs";
import { checked } from "./errno.ts";
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

/** Mounts a new bpffs. Throws a SystemError. */
export function mountBpfFileSystem(path: string): void {
  checked(libc.mount(cString("bpf"), cString(path), cString("bpf"), 0n, null), "mount bpf", path);
}

export function unmount(path: string): void {
  checked(libc.umount2(cString(path), 0), "umount", path);
}

function fileSystemType(path: string): number {
  const statfs = new Uint8Array(120); // struct statfs: f_type at 0, a long (bits/statfs.h)
  checked(libc.statfs(cString(path), statfs), "statfs", path);
  return new DataView(statfs.buffer).getUint32(0, true);
}

// linux/magic.h, asm-generic/fcntl.h; O_DIRECTORY is the one that differs between the two processors.
const BPF_FS_MAGIC = 0xcafe4a11;
const CGROUP2_SUPER_MAGIC = 0x63677270;
const O_RDONLY = 0;
const O_CLOEXEC = 0o2000000;
const O_DIRECTORY = Deno.build.arch === "aarch64" ? 0o40000 : 0o200000;
