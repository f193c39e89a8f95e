import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { constants } from "node:os";
import { checked, ECONNREFUSED, errno, errnoName, SystemError } from "./errno.ts";
import { cString, libc } from "./libc.ts";

const { EBADF, ENOENT } = constants.errno;

Deno.test("errno is that of the call on the line before", () => {
  strictEqual(libc.close(-1), -1);
  strictEqual(errno(), EBADF);
  strictEqual(libc.open(cString("/no/such/file"), 0), -1);
  strictEqual(errno(), ENOENT);
});

Deno.test("each thread reads an errno of its own", async () => {
  const [errnoModule, libcModule] = ["./errno.ts", "./libc.ts"].map((file) =>
    JSON.stringify(new URL(file, import.meta.url).href)
  );
  const source = `
    import { errno } from ${errnoModule};
    import { cString, libc } from ${libcModule};
    onmessage = () => {
      libc.open(cString("/no/such/file"), 0);
      postMessage(errno());
    };
    postMessage("ready");`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  const message = () =>
    new Promise((resolve) => {
      worker.onmessage = ({ data }) => resolve(data);
    });
  try {
    strictEqual(await message(), "ready");
    const answer = message();
    worker.postMessage("");
    strictEqual(await answer, ENOENT);
    libc.close(-1);
    strictEqual(errno(), EBADF);
  } finally {
    worker.terminate();
    URL.revokeObjectURL(url);
  }
});

Deno.test("an errno number has its name, also where it has two", () => {
  for (
    const [number, name] of [
      [1, "EPERM"],
      [11, "EAGAIN"],
      [98, "EADDRINUSE"],
      [104, "ECONNRESET"],
      [111, "ECONNREFUSED"],
      [0, "errno 0"],
      [-1, "errno -1"],
      [9999, "errno 9999"],
    ] as const
  ) {
    strictEqual(errnoName(number), name);
  }
});

Deno.test("a failed call becomes an error that says which call, on what, and why", () => {
  const failed = () => checked(libc.close(-1), "close", "a descriptor that is not open");
  throws(failed, (error) => {
    strictEqual(error instanceof SystemError, true);
    const { name, call, errno, message } = error as SystemError;
    deepStrictEqual([name, call, errno], ["SystemError", "close", EBADF]);
    strictEqual(message, "close failed with EBADF: a descriptor that is not open");
    return true;
  });
  strictEqual(
    new SystemError("connect", ECONNREFUSED, "10.0.0.1:80").message,
    "connect failed with ECONNREFUSED: 10.0.0.1:80",
  );
});

Deno.test("only -1 is a failure", () => {
  for (const result of [0, 1, 3, -2, 2 ** 31 - 1]) strictEqual(checked(result, "call", ""), result);
});

Deno.test("a text with a NUL never reaches C, which would see only a part of it", () => {
  throws(() => cString("/etc/passwd\0.txt"), TypeError);
  deepStrictEqual([...cString("aé")], [0x61, 0xc3, 0xa9, 0]);
  deepStrictEqual([...cString("")], [0]);
});
