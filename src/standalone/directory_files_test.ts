import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { DirectoryFiles } from "./directory_files.ts";

const pod = (name: string) => `kind: Pod\nmetadata: {name: ${name}, uid: ${name}}\n`;

Deno.test("a change that leaves size, time and inode as they were is found", async () => {
  const directory = await Deno.makeTempDir();
  const { stat } = Deno;
  try {
    const file = `${directory}/a.yaml`;
    await Deno.writeTextFile(file, pod("a"));
    const files = new DirectoryFiles(directory);
    const frozen = await stat(file); // as on a file system with coarse timestamps
    Deno.stat = () => Promise.resolve(frozen);
    strictEqual(await files.read(), true);
    strictEqual(files.unsettled, true, "so it has to be read again soon");
    await Deno.writeTextFile(file, pod("b"));
    strictEqual(await files.read(), true);
    deepStrictEqual(files.objects().pods.map(({ name }) => name), ["b"]);
    strictEqual(await files.read(), false, "read again, found the same");

    // Once the last change is long ago, what looks the same is the same, and costs one stat.
    Deno.stat = () => Promise.resolve({ ...frozen, mtime: new Date(0) });
    strictEqual(await files.read(), false);
    strictEqual(files.unsettled, false);
    await Deno.remove(file);
    await Deno.writeTextFile(file, pod("c"));
    strictEqual(await files.read(), false, "not opened");
  } finally {
    Deno.stat = stat;
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a file that cannot be read keeps its objects and is tried again each time", async () => {
  const directory = await Deno.makeTempDir();
  const { open } = Deno;
  try {
    const file = `${directory}/a.yaml`;
    await Deno.writeTextFile(file, pod("a"));
    const files = new DirectoryFiles(directory);
    await files.read();
    await Deno.writeTextFile(file, pod("b"));
    await Deno.utime(file, 0, 0); // long ago: only the failure is a reason to read it again
    Deno.open = () => Promise.reject(new Deno.errors.PermissionDenied("planted"));
    strictEqual(await files.read(), false);
    deepStrictEqual(files.problems(), [{ file: "a.yaml", message: "planted" }]);
    deepStrictEqual(files.objects().pods.map(({ name }) => name), ["a"]);
    Deno.open = open;
    strictEqual(await files.read(), true);
    deepStrictEqual(files.problems(), []);
    deepStrictEqual(files.objects().pods.map(({ name }) => name), ["b"]);
  } finally {
    Deno.open = open;
    await Deno.remove(directory, { recursive: true });
  }
});
