import { match, strictEqual } from "node:assert/strict";

Deno.test("a process that keeps its memory private writes no core, and nobody but root reads it", async () => {
  const script = `
    import { keepMemoryPrivate } from "./src/native/secrecy.ts";
    keepMemoryPrivate();
    console.log(Deno.readTextFileSync("/proc/self/limits"));
    console.log("owner", Deno.statSync("/proc/self/environ").uid);
  `;
  const file = await Deno.makeTempFile({ dir: ".", prefix: ".secrecy-", suffix: ".ts" });
  try {
    await Deno.writeTextFile(file, script);
    const { success, stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", file],
    }).output();
    const text = new TextDecoder().decode(stdout);
    strictEqual(success, true);
    match(text, /Max core file size +0 +0 +bytes/);
    match(text, /owner 0/); // proc(5): of a process that is not dumpable, whoever runs it
  } finally {
    await Deno.remove(file);
  }
});
