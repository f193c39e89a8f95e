import assert from "node:assert/strict";
import type { BpfMap } from "../native/bpf_map.ts";
import { Redirector, removeState } from "./redirector.ts";
import { mountBpfFileSystem, unmount } from "../native/file_system.ts";

export const OBJECT = new URL("../../build/redirect.bpf.o", import.meta.url).pathname;

/** Runs a test with the kernel's own maps, empty, on a bpffs of their own (root). */
export async function withMaps(
  use: (redirector: Redirector) => void | Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  mountBpfFileSystem(directory);
  try {
    const state = `${directory}/state`;
    await Deno.mkdir(state);
    using redirector = new Redirector(OBJECT, state);
    await use(redirector);
    removeState(state);
  } finally {
    unmount(directory);
    await Deno.remove(directory);
  }
}

/** Adds entries, of keys that no program makes, until there is no room for another one. */
export function fill(map: BpfMap): void {
  const key = new Uint8Array(map.keySize).fill(0xff);
  const add = () => {
    for (let number = 0; number < 1_000_000; number++) {
      new DataView(key.buffer).setUint32(0, number);
      map.add(key, new Uint8Array(map.valueSize));
    }
  };
  assert.throws(add, /E2BIG/);
}
