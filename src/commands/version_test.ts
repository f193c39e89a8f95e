import { match, ok, strictEqual } from "node:assert/strict";
import { commitOf, VERSION } from "./version.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

Deno.test("the commit is the image's, else git's, else unknown", async () => {
  const directory = await Deno.makeTempDir();
  const git = async (...args: string[]) => {
    const identity = ["-c", "user.name=a", "-c", "user.email=a@b"];
    const { success } = await new Deno.Command("git", {
      args: ["-C", directory, ...identity, ...args],
      stdout: "null",
    }).output();
    ok(success, args.join(" "));
  };
  try {
    strictEqual(await commitOf(directory), "unknown");
    strictEqual(await commitOf(`${directory}/nowhere`), "unknown");
    await git("init", "--quiet");
    await Deno.writeTextFile(`${directory}/file`, "1");
    await git("add", "file");
    await git("commit", "--quiet", "--message", "x");
    match(await commitOf(directory), /^[0-9a-f]{12}$/);
    await Deno.writeTextFile(`${directory}/file`, "2");
    match(await commitOf(directory), /^[0-9a-f]{12}-dirty$/);
    await Deno.mkdir(`${directory}/inside`);
    strictEqual(await commitOf(`${directory}/inside`), "unknown", "another's repository");
    await Deno.mkdir(`${directory}/build`);
    await Deno.writeTextFile(`${directory}/build/commit`, "0123abc\n");
    strictEqual(await commitOf(directory), "0123abc");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("manifests and change log name this version", async () => {
  for (const file of ["daemonset/40-signer.yaml", "daemonset/50-agent.yaml", "README.md"]) {
    const text = await Deno.readTextFile(`${ROOT}${file}`);
    ok(text.includes(`kube-gateway:${VERSION}`), file);
  }
  match(await Deno.readTextFile(`${ROOT}CHANGELOG.md`), new RegExp(`^## ${VERSION}`, "m"));
});
