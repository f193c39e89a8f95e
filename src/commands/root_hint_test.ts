import { strictEqual } from "node:assert/strict";
import { withRootHint } from "./root_hint.ts";

Deno.test("who may not do what only root may is told so", () => {
  const forbidden = "EACCES: permission denied, lstat '/sys/fs/bpf/x'";
  strictEqual(withRootHint(forbidden, 1000), `${forbidden}: run this as root`);
  strictEqual(withRootHint(forbidden, 0), forbidden);
  const missing = "ENOENT: no such file or directory, lstat '/nonexistent'";
  strictEqual(withRootHint(missing, 1000), missing);
});
