import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { covers, parseCidr } from "../../cidr.ts";
import { coveringRanges, rangeOf, rangeText } from "./refusal.ts";

function cover(addresses: string[], spared: string[] = [], most = 100): string[] {
  const numbers = spared.map((address) => rangeOf(address).first);
  return coveringRanges(addresses, numbers, most).ranges.map(rangeText);
}

Deno.test("addresses that are close together are one range, the others stand for themselves", () => {
  deepStrictEqual(cover([]), []);
  deepStrictEqual(cover(["10.0.0.9", "10.0.0.1", "10.0.0.9"]), ["10.0.0.1", "10.0.0.9"]);
  deepStrictEqual(cover(["10.0.0.1", "10.0.0.2", "192.168.0.1"]), ["10.0.0.0/30", "192.168.0.1"]);
  deepStrictEqual(cover(["fd00::1", "fd00::2", "10.0.0.1"]), ["10.0.0.1", "fd00::/126"]);
  deepStrictEqual(cover(["0.0.0.1", "::1"]), ["::1", "0.0.0.1"]);
});

Deno.test("what is to be spared is in no range with others", () => {
  const named = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
  deepStrictEqual(cover(named, ["10.0.0.0"]), ["10.0.0.1", "10.0.0.2/31"]);
  deepStrictEqual(cover(named, ["10.0.0.4"]), ["10.0.0.0/30"]);
  deepStrictEqual(cover(["10.0.0.1"], ["10.0.0.1"]), ["10.0.0.1"], "named itself");
});

Deno.test("whatever the addresses, each is in a range, and no range is larger than four times what is named in it", () => {
  const random = () => Math.floor(Math.random() * 256);
  const addresses = new Set(
    Array.from({ length: 20_000 }, () => `10.0.${random() % 64}.${random()}`),
  );
  const { ranges, covered } = coveringRanges(addresses, [], 20_000);
  strictEqual(covered, addresses.size);
  const all = [...addresses].map(rangeOf);
  for (const range of ranges) {
    const inside = all.filter((address) => covers(range, address)).length;
    strictEqual(inside * 4 >= 2 ** (128 - range.prefix), true);
  }
  const first = coveringRanges(["10.0.0.1", "10.0.8.1", "10.8.0.1"], [], 2);
  deepStrictEqual([first.ranges.map(rangeText), first.covered], [["10.0.0.1", "10.0.8.1"], 2]);
});

Deno.test("a range is written as it is read", () => {
  for (const text of ["10.0.0.0/8", "fd00::/8", "0.0.0.0/0", "::/0"]) {
    const range = parseCidr(text);
    strictEqual(range !== undefined && rangeText(range), text);
  }
  strictEqual(rangeText(rangeOf("10.1.2.3")), "10.1.2.3");
});
