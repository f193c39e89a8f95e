import { strictEqual, throws } from "node:assert/strict";
import { kindCgroup } from "./kind_cgroup.ts";

const MOUNTS = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";

Deno.test("a kind node's cgroup is its container's", () => {
  const scope = "/system.slice/docker-0123.scope";
  for (const path of [scope, `${scope}/init.scope`]) {
    strictEqual(kindCgroup(`0::${path}\n`, MOUNTS), `/sys/fs/cgroup${scope}`);
  }
  throws(() => kindCgroup("4:memory:/docker/0123\n", MOUNTS), /no cgroup v2/);
});
