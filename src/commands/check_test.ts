import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { ROOT } from "../root_for_tests.ts";
import { bpfFileSystem } from "./check.ts";

Deno.test(
  "a bpffs that the agent mounts itself is not missing, one that it cannot mount is",
  ROOT,
  async () => {
    const directory = await Deno.makeTempDir();
    try {
      const { met, found } = bpfFileSystem(`${directory}/below/state`);
      const said =
        `${directory}/below/state is on none yet: the agent mounts one on ${directory}/below/state`;
      deepStrictEqual([met, found], [true, said]);
      await Deno.writeTextFile(`${directory}/file`, "");
      for (
        const [path, obstacle] of [
          [`${directory}/file/state`, /^ENOTDIR: not a directory/],
          [`${directory}/file`, /file is no directory/],
          ["/proc/none/state", /no directory can be made in \/proc$/],
          ["/sys/none/state", /no directory can be made in \/sys$/],
        ] as const
      ) {
        const { met, found } = bpfFileSystem(path);
        strictEqual(met, false, path);
        match(found, obstacle);
      }
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
);
