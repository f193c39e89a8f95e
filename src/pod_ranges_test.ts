import { strictEqual } from "node:assert/strict";
import { isPodAddressOf, usesPodCidrs } from "./pod_ranges.ts";

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
  const fits = (...all: boolean[]) => new Map(all.map((one, index) => [`n${index}`, one]));
  strictEqual(usesPodCidrs(fits(), "n0"), false, "nobody knows");
  strictEqual(usesPodCidrs(fits(true), "n0"), false, "it is alone");
  strictEqual(usesPodCidrs(fits(false, true), "n0"), true, "it has no voice");
  strictEqual(usesPodCidrs(fits(true, true, false), "n0"), false);
  strictEqual(usesPodCidrs(fits(true, true, true, false), "n0"), true);
});
