import { strictEqual } from "node:assert/strict";
import { isPodAddressOf, PodCidrUse } from "./pod_ranges.ts";

const CASES: [string, string, boolean][] = [
  ["10.1.2.0/24", "10.1.2.2", true],
  ["10.1.2.0/24", "10.1.2.254", true],
  ["10.1.2.7/24", "10.1.2.9", true], // host bits are no part of the network
  ["10.1.2.0/24", "10.1.2.0", false],
  ["10.1.2.0/24", "10.1.2.1", false],
  ["10.1.2.0/24", "10.1.2.255", false],
  ["10.1.2.0/24", "10.1.3.2", false],
  ["10.1.2.0/24", "10.1.1.255", false],
  ["10.1.2.0/24", "::ffff:10.1.2.9", true],
  ["10.1.2.0/31", "10.1.2.0", true],
  ["10.1.2.4/32", "10.1.2.4", true],
  ["10.1.2.4/32", "10.1.2.5", false],
  ["0.0.0.0/0", "10.1.2.3", true],
  ["0.0.0.0/0", "fd00::3", false],
  ["::/0", "10.1.2.3", false],
  ["fd00:1::/64", "fd00:1::5", true],
  ["fd00:1::/64", "fd00:1::1", false],
  ["fd00:1::/64", "fd00:1:0:0:ffff:ffff:ffff:ffff", true], // IPv6 has no broadcast
  ["fd00:1::/64", "fd00:1:0:1::5", false],
  ["10.1.2.0/33", "10.1.2.3", false],
  ["10.1.2.0/", "10.1.2.3", false],
  ["10.1.2.0", "10.1.2.3", false],
  ["10.1.2.0/24/24", "10.1.2.3", false],
  ["10.1.2.0/-1", "10.1.2.3", false],
  ["10.1.2.0/024", "10.1.2.3", false],
  ["fd00::/129", "fd00::3", false],
  ["x/8", "10.1.2.3", false],
  ["", "10.1.2.3", false],
];

Deno.test("which addresses a node's IPAM gives to pods", () => {
  for (const [cidr, address, expected] of CASES) {
    strictEqual(isPodAddressOf(cidr, address), expected, `${cidr} ${address}`);
  }
});

Deno.test("most of the other nodes say whether podCIDRs are in use", () => {
  const isUsual = (all: boolean[], except?: string) => {
    const use = new PodCidrUse();
    for (const [index, one] of all.entries()) use.note(`n${index}`, one);
    return use.isUsual(except);
  };
  strictEqual(isUsual([], "n0"), false, "nobody knows");
  strictEqual(isUsual([true], "n0"), false, "it is alone");
  strictEqual(isUsual([true]), true);
  strictEqual(isUsual([false, true], "n0"), true, "it has no voice");
  strictEqual(isUsual([false, true]), false);
  strictEqual(isUsual([true, true, false], "n0"), false);
  strictEqual(isUsual([true, true, true, false], "n0"), true);
});

Deno.test("one pod elsewhere, and a node does not fit", () => {
  const use = new PodCidrUse();
  for (const isInside of [true, false, true]) use.note("n0", isInside);
  strictEqual(use.isUsual(), false);
  for (const isInside of [true, true]) use.note("n1", isInside);
  strictEqual(use.isUsual(), false, "one of two");
  use.note("n2", true);
  strictEqual(use.isUsual(), true, "two of three");
});
