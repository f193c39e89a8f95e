import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { isIPv4, isIPv6 } from "node:net";
import {
  addressFamily,
  canonicalAddress,
  formatAddress,
  parseAddress,
  specialAddress,
} from "./addresses.ts";

Deno.test("addresses print in their canonical form", () => {
  for (
    const [text, canonical] of [
      ["10.0.0.1", "10.0.0.1"],
      ["255.255.255.255", "255.255.255.255"],
      ["0.0.0.0", "0.0.0.0"],
      ["::ffff:10.1.2.3", "10.1.2.3"],
      ["::FFFF:0a01:0203", "10.1.2.3"],
      ["0:0:0:0:0:ffff:10.1.2.3", "10.1.2.3"],
      ["::", "::"],
      ["::1", "::1"],
      ["1::", "1::"],
      ["FD00:0:0:0:0:0:0:000A", "fd00::a"],
      ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"], // RFC 5952 4.2.2: one zero group stays
      ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"], // 4.2.3: the longest run
      ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"], // 4.2.3: the first of equals
      ["1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"],
      ["64:ff9b::192.0.2.33", "64:ff9b::c000:221"],
      ["1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"],
    ] as const
  ) {
    strictEqual(formatAddress(parseAddress(text)), canonical, text);
    strictEqual(canonicalAddress(text), canonical, text);
    strictEqual(canonicalAddress(canonical), canonical, text);
  }
});

Deno.test("an IPv4 address is held as the mapped IPv6 address, in network byte order", () => {
  deepStrictEqual([...parseAddress("10.1.2.3")], [...Array(10).fill(0), 255, 255, 10, 1, 2, 3]);
  deepStrictEqual([...parseAddress("fd00::102")], [0xfd, ...Array(13).fill(0), 1, 2]);
});

Deno.test("what is no address is refused", () => {
  for (
    const text of [
      "",
      " 10.0.0.1",
      "10.0.0.1\n",
      "10.0.0",
      "10.0.0.1.2",
      "010.0.0.1",
      "10.0.0.01",
      "10.0.0.256",
      "0x0a.0.0.1",
      "10.0.0.-1",
      "10.0.0.1e0",
      "10.0.0.1/32",
      "1.2.3.4\0",
      "localhost",
      ":",
      ":::",
      "1::2::3",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "1:2:3:4:5:6:7:8::",
      "::1:2:3:4:5:6:7:8",
      ":1:2:3:4:5:6:7:8",
      "1:2:3:4:5:6:7:8:",
      "12345::",
      "g::",
      "fe80::1%eth0",
      "[::1]",
      "1.2.3.4::",
      "::1.2.3.4:5",
      "::1.2.3",
      "::01.2.3.4",
      "1:2:3:4:5:6:7:1.2.3.4",
      "0".repeat(10_000) + "::1",
    ]
  ) {
    throws(() => parseAddress(text), TypeError, text);
    strictEqual(canonicalAddress(text), undefined, text);
  }
});

Deno.test("the message holds no more than a bounded piece of the text", () => {
  throws(() => parseAddress("x".repeat(1e6)), (error: Error) => error.message.length < 200);
});

Deno.test("a long text costs nothing", () => {
  const text = "1:".repeat(1e6);
  const start = performance.now();
  for (let i = 0; i < 100; i++) throws(() => parseAddress(text));
  strictEqual(performance.now() - start < 500, true);
});

Deno.test("random texts are judged as node:net judges them", () => {
  const alphabet = "0123456789af:::::..";
  for (let i = 0; i < 200_000; i++) {
    let text = "";
    const length = 2 + Math.floor(Math.random() * 14);
    for (let j = 0; j < length; j++) {
      text += alphabet[Math.floor(Math.random() * alphabet.length)];
    }
    strictEqual(canonicalAddress(text) !== undefined, isIPv4(text) || isIPv6(text), text);
  }
});

Deno.test("random bytes survive being printed and read", () => {
  for (let i = 0; i < 20_000; i++) {
    const bytes = crypto.getRandomValues(new Uint8Array(16)).map((b) => b & 3 ? 0 : b);
    const text = formatAddress(bytes);
    deepStrictEqual(parseAddress(text), bytes, text);
  }
});

Deno.test("only 4 or 16 bytes are an address", () => {
  strictEqual(formatAddress(Uint8Array.of(10, 0, 0, 1)), "10.0.0.1");
  for (const length of [0, 3, 5, 15, 17]) {
    throws(() => formatAddress(new Uint8Array(length)), RangeError);
  }
});

Deno.test("a mapped address is IPv4", () => {
  strictEqual(addressFamily(parseAddress("10.0.0.1")), 4);
  strictEqual(addressFamily(Uint8Array.of(10, 0, 0, 1)), 4);
  strictEqual(addressFamily(parseAddress("::1")), 6);
  strictEqual(addressFamily(parseAddress("::fffe:10.0.0.1")), 6);
  strictEqual(addressFamily(parseAddress("1::ffff:10.0.0.1")), 6);
  strictEqual(addressFamily(parseAddress("::ff:10.0.0.1")), 6);
});

Deno.test("addresses that no pod can have are known", () => {
  for (
    const [text, kind] of [
      ["0.0.0.0", "unspecified"],
      ["0.1.2.3", "unspecified"],
      ["127.0.0.1", "loopback"],
      ["127.255.0.1", "loopback"],
      ["::ffff:127.0.0.1", "loopback"],
      ["169.254.169.254", "link-local"],
      ["224.0.0.1", "multicast"],
      ["239.1.1.1", "multicast"],
      ["240.0.0.1", "reserved"],
      ["255.255.255.255", "reserved"],
      ["::", "unspecified"],
      ["::1", "loopback"],
      ["::2", "reserved"],
      ["::10.0.0.1", "reserved"],
      ["fe80::1", "link-local"],
      ["febf::1", "link-local"],
      ["ff02::1", "multicast"],
      ["10.0.0.1", undefined],
      ["169.253.0.1", undefined],
      ["223.255.255.255", undefined],
      ["126.0.0.1", undefined],
      ["fd00::1", undefined],
      ["fec0::1", undefined],
      ["2001:db8::1", undefined],
    ] as const
  ) {
    strictEqual(specialAddress(parseAddress(text)), kind, text);
  }
});
