import { deepStrictEqual, ok } from "node:assert/strict";
import { RangeClaims } from "./range_claims.ts";

/** `node` → its podCIDRs. */
const claims = (nodes: Record<string, string[]>) =>
  new RangeClaims(Object.entries(nodes).map(([name, podCidrs]) => ({ name, podCidrs })));

const HONEST = {
  a: ["10.1.0.0/24", "fd01:0:0:1::/64"],
  b: ["10.1.1.0/24", "fd01:0:0:2::/64"],
  c: ["10.1.2.0/24", "fd01:0:0:3::/64"],
};

Deno.test("ranges that lie beside each other have no rivals, and no address is another's", () => {
  const of = claims(HONEST);
  deepStrictEqual(of.rivalsOf("a", "10.1.0.0"), []);
  deepStrictEqual(of.rivalsOf("a", "10.1.0.255"), []);
  deepStrictEqual(of.rivalsOf("b", "fd01:0:0:2::9"), []);
  deepStrictEqual(of.rivalsOf("a", "10.1.1.0"), ["b"]);
  deepStrictEqual(of.rivalsOf("x", "fd01:0:0:3::1"), ["c"]);
  for (const address of ["10.0.255.255", "10.1.3.0", "fd01::1", "::1", "255.255.255.255"]) {
    deepStrictEqual(of.rivalsOf("a", address), [], address);
  }
});

Deno.test("the same range, a part of one, or one around it: whoever claims it, both are rivals", () => {
  for (
    const [range, address] of [
      ["10.1.1.0/24", "10.1.1.5"],
      ["10.1.1.9/24", "10.1.1.5"],
      ["10.1.1.0/28", "10.1.1.5"],
      ["10.1.1.4/30", "10.1.1.5"],
      ["10.1.1.5/32", "10.1.1.5"],
      ["10.1.0.0/22", "10.1.1.5"],
      ["0.0.0.0/0", "10.1.1.5"],
      ["fd01:0:0:2::/64", "fd01:0:0:2::5"],
      ["fd01:0:0:2::5/128", "fd01:0:0:2::5"],
      ["::/0", "fd01:0:0:2::5"],
    ] as const
  ) {
    for (const nodes of [{ ...HONEST, thief: [range] }, { thief: [range], ...HONEST }]) {
      const of = claims(nodes);
      deepStrictEqual(of.rivalsOf("b", address), ["thief"], range);
      deepStrictEqual(of.rivalsOf("thief", address).includes("thief"), false, range);
      ok(of.rivalsOf("thief", address).length > 0, range);
    }
  }
  const part = claims({ ...HONEST, thief: ["10.1.1.0/28"] });
  deepStrictEqual(part.rivalsOf("b", "10.1.1.16"), [], "the rest is still b's");
  deepStrictEqual(claims({ ...HONEST, thief: ["::/0"] }).rivalsOf("b", "10.1.1.5"), []);
});

Deno.test("whoever claims very much gets nothing, and takes nothing from those whose it is", () => {
  const of = claims({ ...HONEST, d: ["10.1.3.0/24"], thief: ["10.0.0.0/8", "fd02::/64"] });
  deepStrictEqual(of.rivalsOf("b", "10.1.1.5"), []);
  deepStrictEqual(of.rivalsOf("thief", "10.1.1.5"), ["a", "b"]);
  deepStrictEqual(of.rivalsOf("thief", "10.200.0.5"), ["a", "b"], "what nobody else claims, too");
  deepStrictEqual(of.rivalsOf("thief", "fd02::5"), [], "its other range is another matter");
});

Deno.test("a text that is no range claims nothing, and no Nodes claim nothing", () => {
  deepStrictEqual(claims({ a: ["x", "10.1.0.0", ""] }).rivalsOf("b", "10.1.0.5"), []);
  deepStrictEqual(claims({}).rivalsOf("b", "10.1.0.5"), []);
});

Deno.test("what is said is what comparing every range with every other says", () => {
  const random = (below: number) => Math.floor(Math.random() * below);
  for (let round = 0; round < 300; round++) {
    const nodes = Array.from({ length: 1 + random(12) }, (_, index) => {
      const prefix = 27 + random(6);
      const first = (random(32) >> (32 - prefix)) << (32 - prefix);
      return { name: `n${index}`, podCidrs: [`10.0.0.${first}/${prefix}`], first, prefix };
    });
    const holds = (one: { first: number; prefix: number }, value: number) =>
      value >= one.first && value < one.first + 2 ** (32 - one.prefix);
    const isWide = (one: typeof nodes[number]) =>
      nodes.filter((other) => other.prefix > one.prefix && holds(one, other.first)).length > 3;
    const of = new RangeClaims(nodes);
    for (const node of nodes) {
      for (let value = 0; value < 32; value++) {
        const others = nodes.some((other) =>
          other !== node && !isWide(other) && holds(other, value)
        );
        const expected = others || (isWide(node) && holds(node, value));
        const found = of.rivalsOf(node.name, `10.0.0.${value}`).length > 0;
        deepStrictEqual(found, expected, JSON.stringify({ nodes, node, value }));
      }
    }
  }
});

Deno.test("5,000 Nodes are compared within a moment, also when all claim the same", () => {
  for (
    const range of [(index: number) => `10.${index >> 8}.${index & 255}.0/24`, () => "10.0.0.0/8"]
  ) {
    const nodes = Array.from({ length: 5_000 }, (_, index) => ({
      name: `n${index}`,
      podCidrs: [range(index), `fd00:${index.toString(16)}::/64`],
    }));
    const began = performance.now();
    const of = new RangeClaims(nodes);
    for (let index = 0; index < 5_000; index++) of.rivalsOf("n1", `10.${index >> 8}.7.5`);
    ok(performance.now() - began < 2_000, `${performance.now() - began} ms`);
  }
});
