import { rmSync } from "node:fs";
import { idOf, infoOf, openPinned } from "./bpf_info.ts";
import { errno, SystemError } from "./errno.ts";
import { libbpf } from "./libbpf.ts";
import { cString, libc } from "./libc.ts";

/** A compiled eBPF object, loaded into the kernel. */
export class BpfObject implements Disposable {
  readonly #pointer: Deno.PointerObject;
  /** The maps that were pinned with another layout. Then all were made anew. */
  readonly misfits: readonly string[];
  readonly #pinDirectory: string;

  /**
   * Loads `file`. Its maps are pinned as `<pinDirectory>/<name>`, or taken from there when all that
   * exist fit; programs of before keep the maps that they have. Throws a SystemError; the
   * verifier's or libbpf's own words then go to stderr.
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
    this.#pinDirectory = pinDirectory;
  }

  /** The descriptor of a map, valid until the object is disposed of. */
  map(name: string): number {
    const map = libbpf.bpf_object__find_map_by_name(this.#pointer, cString(name));
    return found(map === null ? -errno() : libbpf.bpf_map__fd(map), `map ${name}`, this.file);
  }

  /**
   * Whether this very map is pinned in its place now. Throws a SystemError when that cannot be
   * told.
   */
  isMapPinned(name: string): boolean {
    const descriptor = openPinned(this.#pin(name));
    if (descriptor === undefined) return false;
    try {
      return identityOf(descriptor, name) === identityOf(this.map(name), name);
    } finally {
      libc.close(descriptor);
    }
  }

  /** Pins a map in its place, in that of anything else that lies there. Throws a SystemError. */
  pinMap(name: string): void {
    if (this.isMapPinned(name)) return;
    const path = this.#pin(name);
    rmSync(path, { recursive: true, force: true });
    const result = libbpf.bpf_obj_pin(this.map(name), cString(path));
    if (result < 0) throw new SystemError("bpf_obj_pin", -result, path);
  }

  /** The descriptor of a program, valid until the object is disposed of. */
  program(name: string): number {
    const program = libbpf.bpf_object__find_program_by_name(this.#pointer, cString(name));
    const descriptor = program === null ? -errno() : libbpf.bpf_program__fd(program);
    return found(descriptor, `program ${name}`, this.file);
  }

  /** The kernel's number of a program, as links and queries name it. */
  programId(name: string): number {
    return idOf(this.program(name), name);
  }

  #pin(map: string): string {
    return `${this.#pinDirectory}/${map}`;
  }

  [Symbol.dispose](): void {
    libbpf.bpf_object__close(this.#pointer);
  }
}

/** Type, number and sizes: no link or program that has a map's number has all of them. */
function identityOf(map: number, about: string): string {
  return infoOf(map, new Uint32Array(6), about).join();
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
      // Entries of one map point into another: some of before and some anew would contradict each
      // other.
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
  const descriptor = openPinned(path);
  if (descriptor === undefined) return undefined;
  // struct bpf_map_info begins with type, id, key_size, value_size, max_entries, map_flags
  // (linux/bpf.h).
  try {
    const [type, _id, ...sizes] = infoOf(descriptor, new Uint32Array(6), path);
    return [type, ...sizes].join();
  } finally {
    libc.close(descriptor);
  }
}

function found(descriptor: number, what: string, file: string): number {
  if (descriptor < 0) throw new SystemError("bpf_object__find", -descriptor, `${what} in ${file}`);
  return descriptor;
}

/** libbpf's own printer; it is silent but for failures, whose lines would break a JSON log. */
const printToStderr = libbpf.libbpf_set_print(null);
