import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { parseListenAddress, serveHttp } from "./listen_address.ts";

Deno.test("an address is HOST:PORT, or :PORT for all", () => {
  for (
    const [text, hostname, port] of [
      ["0.0.0.0:8080", "0.0.0.0", 8080],
      ["[::]:1", "::", 1],
      ["localhost:0", "localhost", 0],
      [":9464", undefined, 9464],
    ] as const
  ) deepStrictEqual(parseListenAddress(text), { hostname, port });
  for (const text of ["8080", "a:65536", "::1:80", "", ":", "a b:1", "http://a:1"]) {
    strictEqual(parseListenAddress(text), undefined, text);
  }
});

Deno.test("on all addresses means both families", async () => {
  const server = serveHttp({ hostname: undefined, port: 0 }, () => new Response("here"));
  const { port } = server.addr as Deno.NetAddr;
  for (const host of ["127.0.0.1", "[::1]"]) {
    strictEqual(await (await fetch(`http://${host}:${port}/`)).text(), "here");
  }
  await server.shutdown();
});

Deno.test("a handler that throws is answered with 500", async () => {
  const server = serveHttp({ hostname: "127.0.0.1", port: 0 }, () => {
    throw new Error("broken");
  });
  const { port } = server.addr as Deno.NetAddr;
  const response = await fetch(`http://127.0.0.1:${port}/`);
  deepStrictEqual([response.status, await response.text()], [500, "Error: broken\n"]);
  await server.shutdown();
});
