import { strictEqual } from "node:assert/strict";
import { errorText } from "../error_text.ts";
import { whyNot } from "../operate/admin.ts";
import { withRootHint } from "./root_hint.ts";

Deno.test("who may not do what only root may is told so", () => {
  const forbidden = "EACCES: permission denied, lstat '/sys/fs/bpf/x'";
  strictEqual(withRootHint(forbidden, 1000), `${forbidden}: run this as root`);
  strictEqual(withRootHint(forbidden, 0), forbidden);
  const missing = "ENOENT: no such file or directory, lstat '/nonexistent'";
  strictEqual(withRootHint(missing, 1000), missing);
});

Deno.test("who may not open an agent's socket is told so once", () => {
  const cause = Object.assign(new Error("connect EACCES /run/a.sock"), { code: "EACCES" });
  const error = new Error(whyNot("/run/a.sock", cause), { cause });
  strictEqual(
    withRootHint(errorText(error), 1000),
    "connect EACCES /run/a.sock: the socket is root's, so run this as root",
  );
});
