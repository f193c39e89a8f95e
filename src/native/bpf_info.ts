import { SystemError } from "./errno.ts";
import { libbpf } from "./libbpf.ts";

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
