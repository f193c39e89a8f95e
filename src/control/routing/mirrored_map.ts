import type { BpfMap } from "../../native/bpf_map.ts";
import { SystemError } from "../../native/errno.ts";

/** A map of the kernel that is to say just what is wanted. Its keys are written in hexadecimal. */
export class MirroredMap {
  #wanted: ReadonlyMap<string, Uint8Array<ArrayBuffer>> = new Map();
  #failure: SystemError | undefined;

  constructor(readonly map: BpfMap) {}

  /** Why an entry could not be written; `audit` tries again. */
  get failure(): SystemError | undefined {
    return this.#failure;
  }

  /** How many entries are wanted. */
  get size(): number {
    return this.#wanted.size;
  }

  /** Writes what is missing or different, and removes what is not wanted. Never throws. */
  apply(wanted: ReadonlyMap<string, Uint8Array<ArrayBuffer>>): void {
    this.#wanted = wanted;
    this.#write(this.#read());
    this.#removeOthers();
  }

  /** The same, but leaves what is there besides. */
  add(wanted: ReadonlyMap<string, Uint8Array<ArrayBuffer>>): void {
    this.#wanted = wanted;
    this.#write(this.#read());
  }

  /** Makes the kernel's map as it was left by `apply`; says how many entries were not. */
  audit(): number {
    const failedBefore = this.#failure !== undefined;
    const written = this.#write(this.#read());
    return (failedBefore ? 0 : written) + this.#removeOthers();
  }

  /** All entries: looking up a key of an LPM trie would find a shorter one, too. */
  #read(): Map<string, Uint8Array<ArrayBuffer>> {
    const found = new Map<string, Uint8Array<ArrayBuffer>>();
    for (const { key, value } of this.map.entries()) found.set(key.toHex(), value);
    return found;
  }

  #write(found: ReadonlyMap<string, Uint8Array<ArrayBuffer>>): number {
    let written = 0;
    this.#failure = undefined;
    for (const [hex, value] of this.#wanted) {
      if (isSame(found.get(hex), value)) continue;
      try {
        this.map.set(Uint8Array.fromHex(hex), value);
        written++;
      } catch (error) {
        if (!(error instanceof SystemError)) throw error;
        this.#failure ??= error;
      }
    }
    return written;
  }

  #removeOthers(): number {
    const others = [...this.#read().keys()].filter((key) => !this.#wanted.has(key));
    for (const key of others) this.map.delete(Uint8Array.fromHex(key));
    return others.length;
  }
}

export function isSame(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && a.length === b.length && a.every((byte, index) => byte === b[index]);
}
