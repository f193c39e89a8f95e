import { EEXIST, ENOENT, ENOSPC, SystemError } from "./errno.ts";
import { libbpf } from "./libbpf.ts";

/** Entries of a map. */
export interface Batch {
  readonly keys: Uint8Array<ArrayBuffer>;
  readonly values: Uint8Array<ArrayBuffer>;
  readonly count: number;
}

/**
 * A map by its descriptor, which its owner closes. Keys and values are raw bytes (kernel/maps.ts).
 */
export class BpfMap {
  constructor(
    readonly name: string,
    readonly descriptor: number,
    readonly keySize: number,
    readonly valueSize: number,
  ) {}

  set(key: Uint8Array<ArrayBuffer>, value: Uint8Array<ArrayBuffer>): void {
    const result = libbpf.bpf_map_update_elem(this.descriptor, key, value, BPF_ANY);
    if (result < 0) throw new SystemError("bpf_map_update_elem", -result, `map ${this.name}`);
  }

  /** The same for a new key: false when it is there already. */
  add(key: Uint8Array<ArrayBuffer>, value: Uint8Array<ArrayBuffer>): boolean {
    const result = libbpf.bpf_map_update_elem(this.descriptor, key, value, BPF_NOEXIST);
    if (result < 0 && result !== -EEXIST) {
      throw new SystemError("bpf_map_update_elem", -result, `map ${this.name}`);
    }
    return result === 0;
  }

  /** Removes a key; one that is not there is no error. */
  delete(key: Uint8Array<ArrayBuffer>): void {
    const result = libbpf.bpf_map_delete_elem(this.descriptor, key);
    if (result < 0 && result !== -ENOENT) {
      throw new SystemError("bpf_map_delete_elem", -result, `map ${this.name}`);
    }
  }

  has(key: Uint8Array<ArrayBuffer>): boolean {
    return this.get(key) !== undefined;
  }

  get(key: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
    return this.#lookup("bpf_map_lookup_elem", key);
  }

  /** Reads a key and removes it in one step (hash maps: Linux 5.14). */
  take(key: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
    return this.#lookup("bpf_map_lookup_and_delete_elem", key);
  }

  /** All keys, as they are at some time during the call. */
  keys(): Uint8Array<ArrayBuffer>[] {
    const keys: Uint8Array<ArrayBuffer>[] = [];
    // A key that does not exist starts from the beginning; so does an all-zero one, which nobody
    // stores.
    let previous = new Uint8Array(this.keySize);
    for (;;) {
      const next = new Uint8Array(this.keySize);
      const result = libbpf.bpf_map_get_next_key(this.descriptor, previous, next);
      if (result === -ENOENT) return keys;
      if (result < 0) throw new SystemError("bpf_map_get_next_key", -result, `map ${this.name}`);
      keys.push(next);
      previous = next;
    }
  }

  /** All entries. One that is removed or added meanwhile is listed or not. */
  *entries(): Generator<{ key: Uint8Array<ArrayBuffer>; value: Uint8Array<ArrayBuffer> }> {
    const { keySize, valueSize } = this;
    for (const { keys, values, count } of this.batches(FEW)) {
      for (let index = 0; index < count; index++) {
        yield {
          key: keys.slice(index * keySize, (index + 1) * keySize),
          value: values.slice(index * valueSize, (index + 1) * valueSize),
        };
      }
    }
  }

  /**
   * The same in buffers that hold one entry after the other until the next batch is read: a system
   * call and no allocation for thousands (hash maps: Linux 5.6, LPM tries: 5.13).
   */
  *batches(room = MANY): Generator<Batch> {
    let keys = new Uint8Array(room * this.keySize);
    let values = new Uint8Array(room * this.valueSize);
    let from: Uint8Array<ArrayBuffer> | null = null;
    for (let isLast = false; !isLast;) {
      const count = Uint32Array.of(room);
      const next = new Uint8Array(Math.max(this.keySize, 4)); // a hash map's bucket, else a key
      const { descriptor } = this;
      const result = libbpf.bpf_map_lookup_batch(descriptor, from, next, keys, values, count, null);
      if (result === -ENOSPC) { // one bucket has more than that
        room *= 2;
        keys = new Uint8Array(room * this.keySize);
        values = new Uint8Array(room * this.valueSize);
        continue;
      }
      isLast = result === -ENOENT;
      if (result < 0 && !isLast) {
        throw new SystemError("bpf_map_lookup_batch", -result, `map ${this.name}`);
      }
      yield { keys, values, count: count[0] ?? 0 };
      from = next;
    }
  }

  #lookup(
    call: "bpf_map_lookup_elem" | "bpf_map_lookup_and_delete_elem",
    key: Uint8Array<ArrayBuffer>,
  ): Uint8Array<ArrayBuffer> | undefined {
    const value = new Uint8Array(this.valueSize);
    const result = libbpf[call](this.descriptor, key, value);
    if (result === 0) return value;
    if (result === -ENOENT) return undefined;
    throw new SystemError(call, -result, `map ${this.name}`);
  }
}

// linux/bpf.h
const BPF_ANY = 0n;
const BPF_NOEXIST = 1n;

/** How many entries are read at once: of a large map, and of one that has few as a rule. */
const MANY = 4_096;
const FEW = 128;
