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
