import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { covers, parseCidr } from "../../cidr.ts";
import { coveringRanges, rangeOf, rangeText } from "./refusal.ts";

Deno.test("addresses stand for themselves while there is room, and in ranges that hold them all then", () => {
  const cover = (addresses: string[], most: number) =>
    coveringRanges(addresses, most).map(rangeText);
  deepStrictEqual(cover([], 2), []);
  deepStrictEqual(cover(["10.0.0.9", "10.0.0.1", "10.0.0.9"], 2), ["10.0.0.1", "10.0.0.9"]);
  deepStrictEqual(cover(["10.0.0.1", "10.0.0.2", "10.0.0.3"], 2), ["10.0.0.0/31", "10.0.0.2/31"]);
  deepStrictEqual(cover(["10.0.0.1", "10.0.0.2", "192.168.0.1"], 2), [
    "10.0.0.0/30",
    "192.168.0.0/30",
  ]);
  deepStrictEqual(cover(["fd00::1", "fd00::2", "10.0.0.1"], 1), ["10.0.0.1", "fd00::/126"]);
});

Deno.test("whatever the addresses, no more ranges are made than are allowed, and every address is in one", () => {
  const random = () => Math.floor(Math.random() * 256);
  const addresses = Array.from({ length: 5_000 }, () => `${1 + random() % 220}.${random()}.1.1`);
  const ranges = coveringRanges(addresses, 16);
  strictEqual(ranges.length <= 16, true);
  for (const address of addresses) {
    strictEqual(ranges.some((range) => covers(range, rangeOf(address))), true, address);
  }
});

Deno.test("a range is written as it is read", () => {
  for (const text of ["10.0.0.0/8", "fd00::/8", "0.0.0.0/0", "::/0"]) {
    const range = parseCidr(text);
    strictEqual(range !== undefined && rangeText(range), text);
  }
  strictEqual(rangeText(rangeOf("10.1.2.3")), "10.1.2.3");
});
