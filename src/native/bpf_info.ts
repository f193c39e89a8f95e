import { EACCES, ELOOP, ENOENT, ENOTDIR, SystemError } from "./errno.ts";
import { libbpf } from "./libbpf.ts";
import { cString } from "./libc.ts";

/**
 * A descriptor of the map, program or link that is pinned as `path`; undefined when none of them
 * is. Throws a SystemError when that cannot be told, as by who has no descriptor left.
 */
export function openPinned(path: string): number | undefined {
  const descriptor = libbpf.bpf_obj_get(cString(path));
  if (descriptor >= 0) return descriptor;
  if (NONE_PINNED.has(-descriptor)) return undefined;
  throw new SystemError("bpf_obj_get", -descriptor, path);
}

/** EACCES is what the kernel says of any other file (bpf_inode_type() in kernel/bpf/inode.c). */
const NONE_PINNED: ReadonlySet<number> = new Set([ENOENT, ENOTDIR, ELOOP, EACCES]);

/**
 * Fills `info` with the beginning of what the kernel says of a map, a program or a link. Throws a
 * SystemError.
 */
export function infoOf(
  descriptor: number,
  info: Uint32Array<ArrayBuffer>,
  about: string,
): Uint32Array<ArrayBuffer> {
  size[0] = info.byteLength;
  const result = libbpf.bpf_obj_get_info_by_fd(descriptor, info, size);
  if (result < 0) throw new SystemError("bpf_obj_get_info_by_fd", -result, about);
  return info;
}

const size = new Uint32Array(1);

/** The kernel's number of a map, a program or a link: each kind has its own, none is used twice. */
export function idOf(descriptor: number, about: string): number {
  // struct bpf_map_info, bpf_prog_info and bpf_link_info all begin with type and id (linux/bpf.h).
  const [_type, id = 0] = infoOf(descriptor, new Uint32Array(2), about);
  return id;
}
