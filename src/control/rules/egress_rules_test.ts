import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { type Cidr, parseCidr } from "../../cidr.ts";
import { egressRules, parseEgressException } from "./egress_rules.ts";

function cidr(text: string): Cidr {
  const range = parseCidr(text);
  if (range === undefined) throw new TypeError(text);
  return range;
}

function rules(inside: string[], exceptions: string[]): Record<string, "every" | number[]> {
  const parsed = exceptions.map((text) => {
    const exception = parseEgressException(text);
    if (exception === undefined) throw new TypeError(text);
    return exception;
  });
  const names = new Map(
    [...inside, ...exceptions].map((text) => {
      const bare = /[0-9a-f.:]+\/\d+/.exec(text)?.[0] ?? "";
      const { first, prefix } = cidr(bare);
      return [`${first}/${prefix}`, bare];
    }),
  );
  return Object.fromEntries(
    egressRules(inside.map(cidr), parsed, 16).map((
      { range, ports },
    ) => [names.get(`${range.first}/${range.prefix}`), ports === "every" ? ports : [...ports]]),
  );
}

Deno.test("exceptions are a range, or a range and a port", () => {
  const read = (text: string) => parseEgressException(text);
  deepStrictEqual(read("10.0.0.0/8"), { range: cidr("10.0.0.0/8"), port: undefined });
  deepStrictEqual(read("10.0.0.0/8:53"), { range: cidr("10.0.0.0/8"), port: 53 });
  deepStrictEqual(read("fd00::/8"), { range: cidr("fd00::/8"), port: undefined });
  deepStrictEqual(read("[fd00::/8]:53"), { range: cidr("fd00::/8"), port: 53 });
  for (
    const bad of [
      "",
      "10.0.0.0",
      "10.0.0.0/33",
      "10.0.0.0/8:0",
      "10.0.0.0/8:65536",
      "x/8",
      "[10/8]",
    ]
  ) {
    strictEqual(read(bad), undefined, bad);
  }
});

Deno.test("a rule repeats what wider exceptions allow, and an exception outside makes none", () => {
  deepStrictEqual(
    rules(["10.0.0.0/8", "fd00::/8"], [
      "0.0.0.0/0:53",
      "10.96.0.1/32:443",
      "10.1.0.0/16",
      "10.1.2.0/24:80",
      "192.0.2.0/24:22",
    ]),
    {
      "10.0.0.0/8": [53],
      "fd00::/8": [],
      "10.96.0.1/32": [53, 443],
      "10.1.0.0/16": "every",
      "10.1.2.0/24": "every",
    },
  );
});

Deno.test("more ports than the kernel's map holds are refused", () => {
  const many = Array.from({ length: 17 }, (_, index) => `10.0.0.0/8:${index + 1}`);
  throws(() => rules(["10.0.0.0/8"], many), /more than 16 ports/);
});
