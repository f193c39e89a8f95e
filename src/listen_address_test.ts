import { deepStrictEqual, match, strictEqual, throws } from "node:assert/strict";
import { listen, parseListenAddress } from "./listen_address.ts";

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
  using listener = listen({ hostname: undefined, port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  for (const hostname of ["127.0.0.1", "::1"]) {
    using _client = await Deno.connect({ hostname, port });
    using _server = await listener.accept();
  }
});

Deno.test("an address that is taken is named", () => {
  using listener = listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  throws(() => listen({ hostname: "127.0.0.1", port }), (error: Error) => {
    match(error.message, new RegExp(`^cannot listen on 127.0.0.1:${port}: AddrInUse`));
    return true;
  });
});
