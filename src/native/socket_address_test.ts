import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { parseAddress } from "../addresses.ts";
import { Socket } from "./socket.ts";
import {
  AF_INET,
  AF_INET6,
  decodeSocketAddress,
  encodeSocketAddress,
  isIpv4,
  isLoopback,
  SOCKADDR_SIZE,
} from "./socket_address.ts";

Deno.test("an IPv4 endpoint is a sockaddr_in, an IPv6 one a sockaddr_in6", () => {
  deepStrictEqual(
    [...encodeSocketAddress({ address: parseAddress("10.1.2.3"), port: 0x1f90 })],
    [AF_INET, 0, 0x1f, 0x90, 10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0],
  );
  deepStrictEqual(
    [...encodeSocketAddress({ address: parseAddress("fd00::1:2"), port: 443 })],
    [
      ...[AF_INET6, 0, 0x01, 0xbb, 0, 0, 0, 0],
      ...[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2],
      ...[0, 0, 0, 0],
    ],
  );
});

Deno.test("an endpoint comes back from its socket address, also out of a larger buffer", () => {
  for (
    const text of ["0.0.0.0", "127.0.0.1", "255.255.255.255", "::", "::1", "fd00::1", "fe80::1"]
  ) {
    for (const port of [0, 1, 255, 256, 18443, 65535]) {
      const endpoint = { address: parseAddress(text), port };
      const encoded = encodeSocketAddress(endpoint);
      deepStrictEqual(decodeSocketAddress(encoded), endpoint, text);

      const memory = new Uint8Array(8 + SOCKADDR_SIZE).fill(0xee);
      memory.set(encoded, 8);
      deepStrictEqual(decodeSocketAddress(memory.subarray(8)), endpoint, text);
    }
  }
});

Deno.test("a decoded address does not change with the buffer it came from", () => {
  const bytes = encodeSocketAddress({ address: parseAddress("fd00::1"), port: 1 });
  const { address } = decodeSocketAddress(bytes);
  bytes.fill(0xee);
  deepStrictEqual(address, parseAddress("fd00::1"));
});

Deno.test("another family than IP's is refused", () => {
  for (const family of [0, 1, 16, 40, 0x0200]) {
    const bytes = new Uint8Array(SOCKADDR_SIZE);
    new DataView(bytes.buffer).setUint16(0, family, true);
    throws(() => decodeSocketAddress(bytes), {
      name: "TypeError",
      message: `cannot read a socket address of family ${family}: it is not an IP address`,
    });
  }
});

Deno.test("IPv4 and loopback addresses are told by all their bytes", () => {
  for (
    const [text, ipv4, loopback] of [
      ["127.0.0.1", true, true],
      ["127.255.255.254", true, true],
      ["126.255.255.255", true, false],
      ["128.0.0.1", true, false],
      ["10.0.0.127", true, false],
      ["::1", false, true],
      ["::", false, false],
      ["::2", false, false],
      ["::101", false, false],
      ["1::1", false, false],
      ["::127.0.0.1", false, false],
      ["::fffe:7f00:1", false, false],
      ["1::ffff:7f00:1", false, false],
    ] as const
  ) {
    strictEqual(isIpv4(parseAddress(text)), ipv4, `${text} is IPv4`);
    strictEqual(isLoopback(parseAddress(text)), loopback, `${text} is loopback`);
  }
});

Deno.test("the kernel reads and writes the same endpoints", () => {
  for (const text of ["127.0.0.1", "::1"]) {
    using socket = Socket.forAddress(parseAddress(text));
    socket.bind({ address: parseAddress(text), port: 0 });
    const { address, port } = socket.localEndpoint();
    deepStrictEqual(address, parseAddress(text));
    strictEqual(port > 0, true);
    // The same port once more: taken, so bind() has understood it.
    using second = Socket.forAddress(address);
    throws(() => second.bind({ address, port }), { name: "SystemError", call: "bind" });
  }
});
