import { rmSync } from "node:fs";
import { errno, SystemError } from "./errno.ts";
import { libbpf } from "./libbpf.ts";
import { cString, libc } from "./libc.ts";

/** A compiled eBPF object, loaded into the kernel. */
export class BpfObject implements Disposable {
  readonly #pointer: Deno.PointerObject;
  /** The maps that were pinned with another layout. Then all were made anew. */
  readonly misfits: readonly string[];

  /**
   * Loads `file`. Its maps are pinned as `<pinDirectory>/<name>`, or taken from there when all that exist fit;
   * programs of before keep the maps that they have. Throws a SystemError; the verifier's or libbpf's own words then
   * go to stderr.
   */
  constructor(readonly file: string, maps: readonly string[], pinDirectory: string) {
    let loaded: Loaded;
    try {
      loaded = load(file, maps, pinDirectory);
    } catch {
      // Once more, aloud: without libbpf's messages nobody can tell what the verifier disliked.
      libbpf.libbpf_set_print(printToStderr);
      try {
        loaded = load(file, maps, pinDirectory);
      } finally {
        libbpf.libbpf_set_print(null);
      }
    }
    this.#pointer = loaded.object;
    this.misfits = loaded.misfits;
  }

  /** The descriptor of a map, valid until the object is disposed of. */
  map(name: string): number {
    const map = libbpf.bpf_object__find_map_by_name(this.#pointer, cString(name));
    return found(map === null ? -errno() : libbpf.bpf_map__fd(map), `map ${name}`, this.file);
  }

  /** The descriptor of a program, valid until the object is disposed of. */
  program(name: string): number {
    const program = libbpf.bpf_object__find_program_by_name(this.#pointer, cString(name));
    const descriptor = program === null ? -errno() : libbpf.bpf_program__fd(program);
    return found(descriptor, `program ${name}`, this.file);
  }

  [Symbol.dispose](): void {
    libbpf.bpf_object__close(this.#pointer);
  }
}

interface Loaded {
  readonly object: Deno.PointerObject;
  readonly misfits: readonly string[];
}

function load(file: string, maps: readonly string[], pinDirectory: string): Loaded {
  const object = libbpf.bpf_object__open_file(cString(file), null);
  if (object === null) throw new SystemError("bpf_object__open_file", errno(), file);
  try {
    const pins = maps.map((name) => ({
      name,
      map: libbpf.bpf_object__find_map_by_name(object, cString(name)),
      path: `${pinDirectory}/${name}`,
    }));
    // libbpf would refuse to take what another version has pinned.
    const misfits = pins.filter(({ map, path }) => {
      const pinned = pinnedLayout(path);
      return pinned !== undefined && pinned !== layoutOf(map);
    });
    for (const { map, path } of pins) {
      // Entries of one map point into another: some of before and some anew would contradict each other.
      if (misfits.length > 0) rmSync(path, { force: true });
      libbpf.bpf_map__set_pin_path(map, cString(path));
    }
    const result = libbpf.bpf_object__load(object);
    if (result < 0) throw new SystemError("bpf_object__load", -result, file);
    return { object, misfits: misfits.map(({ name }) => name) };
  } catch (error) {
    libbpf.bpf_object__close(object);
    throw error;
  }
}

/** Of a map in an object: what {@link pinnedLayout} says of one in the kernel. */
function layoutOf(map: Deno.PointerValue): string {
  return [
    libbpf.bpf_map__type(map),
    libbpf.bpf_map__key_size(map),
    libbpf.bpf_map__value_size(map),
    libbpf.bpf_map__max_entries(map),
    libbpf.bpf_map__map_flags(map),
  ].join();
}

/** Undefined where no map is pinned. */
function pinnedLayout(path: string): string | undefined {
  const descriptor = libbpf.bpf_obj_get(cString(path));
  if (descriptor < 0) return undefined;
  // struct bpf_map_info begins with type, id, key_size, value_size, max_entries, map_flags (linux/bpf.h).
  try {
    const [type, _id, ...sizes] = infoOf(descriptor, new Uint32Array(6), path);
    return [type, ...sizes].join();
  } finally {
    libc.close(descriptor);
  }
}

/** Fills `info` with what the kernel says of a map or a link. */
function infoOf(
  descriptor: number,
  info: Uint32Array<ArrayBuffer>,
  about: string,
): Uint32Array<ArrayBuffer> {
  const size = Uint32Array.of(info.byteLength);
  const result = libbpf.bpf_obj_get_info_by_fd(descriptor, info, size);
  if (result < 0) throw new SystemError("bpf_obj_get_info_by_fd", -result, about);
  return info;
}

function found(descriptor: number, what: string, file: string): number {
  if (descriptor < 0) throw new SystemError("bpf_object__find", -descriptor, `${what} in ${file}`);
  return descriptor;
}

/** An attached program: gone with its last descriptor and its pin. */
export class BpfLink implements Disposable {
  private constructor(readonly descriptor: number) {}

  /** Attaches a program to an open cgroup or network namespace. */
  static attach(program: number, target: number, attachType: number, about: string): BpfLink {
    const descriptor = libbpf.bpf_link_create(program, target, attachType, null);
    if (descriptor < 0) throw new SystemError("bpf_link_create", -descriptor, about);
    return new BpfLink(descriptor);
  }

  /** Opens a pinned link, or undefined when there is none. */
  static open(path: string): BpfLink | undefined {
    const descriptor = libbpf.bpf_obj_get(cString(path));
    return descriptor < 0 ? undefined : new BpfLink(descriptor);
  }

  /** The ID of the cgroup that it is attached to; 0 when that is gone, or when it is attached to something else. */
  cgroup(): bigint {
    // struct bpf_link_info: type, id, prog_id, then at 16 cgroup_id and attach_type (linux/bpf.h).
    const info = new BigUint64Array(5);
    const [type] = infoOf(this.descriptor, new Uint32Array(info.buffer), "a link");
    return type === BPF_LINK_TYPE_CGROUP ? info[2] ?? 0n : 0n;
  }

  pin(path: string): void {
    const result = libbpf.bpf_obj_pin(this.descriptor, cString(path));
    if (result < 0) throw new SystemError("bpf_obj_pin", -result, path);
  }

  /** Puts another program in the attached one's place, with no moment between the two. */
  replace(program: number, about: string): void {
    const result = libbpf.bpf_link_update(this.descriptor, program, null);
    if (result < 0) throw new SystemError("bpf_link_update", -result, about);
  }

  [Symbol.dispose](): void {
    libc.close(this.descriptor);
  }
}

const BPF_LINK_TYPE_CGROUP = 3; // enum bpf_link_type, linux/bpf.h

/** libbpf's own printer; it is silent but for failures, whose lines would break a JSON log. */
const printToStderr = libbpf.libbpf_set_print(null);
