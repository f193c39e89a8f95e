import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import type { RegistryPart } from "../../cluster/registry.ts";
import { rangeText } from "./refusal.ts";
import { RegistryBounds } from "./registry_bounds.ts";

const LIMITS = { ofNode: 4, ofAll: 10 };

/** A node's slice with so many entries. */
function part(node: string, index: number, count: number, unbelieved: string[] = []): RegistryPart {
  const slice = `kube-gateway/registry-${node}-ipv4-${index}`;
  return {
    slice,
    node,
    peers: Array.from({ length: count }, (_, pod) => ({
      address: `10.${node.charCodeAt(0)}.${index}.${pod + 1}`,
      identity: "spiffe://td/ns/a/sa/b",
      uid: `${node}-${index}-${pod}`,
      pod: "a/b",
      node,
      slice,
      ready: true,
    })),
    refused: unbelieved.length === 0
      ? []
      : [{ slice, reason: "no identity", addresses: unbelieved }],
  };
}

function sizes(bounds: RegistryBounds, parts: RegistryPart[]): Record<string, number> {
  return Object.fromEntries(
    [...bounds.apply(parts)].map(([slice, { peers }]) => [slice.slice(22), peers.length]),
  );
}

Deno.test("what is within the bounds is believed as it is", () => {
  const bounds = new RegistryBounds(LIMITS);
  const parts = [part("a", 0, 3), part("a", 1, 1), part("b", 0, 4)];
  deepStrictEqual([...bounds.apply(parts).values()], parts);
  deepStrictEqual(bounds.refusals(), []);
});

Deno.test("a node's excess is refused, whatever the order of its slices, and costs no other node anything", () => {
  const parts = [part("a", 0, 3), part("a", 1, 3), part("a", 2, 1), part("b", 0, 4)];
  for (const order of [parts, parts.toReversed()]) {
    const bounds = new RegistryBounds(LIMITS);
    const expected = { "a-ipv4-0": 3, "a-ipv4-1": 1, "a-ipv4-2": 0, "b-ipv4-0": 4 };
    deepStrictEqual(sizes(bounds, order), expected);
    const [refusal, ...more] = bounds.refusals();
    deepStrictEqual(more, []);
    strictEqual(refusal?.where, "registry of a");
    match(refusal?.message ?? "", /it has 7 entries, 4 are believed/);
    const beyond = ["10.97.1.2/31", "10.97.2.1"];
    deepStrictEqual(refusal?.ranges.map(rangeText), beyond);
    strictEqual(refusal?.isWide, false);
  }
});

Deno.test("many nodes share what there is, and those that want little have it", () => {
  const bounds = new RegistryBounds(LIMITS);
  const parts = [part("a", 0, 4), part("b", 0, 4), part("c", 0, 4), part("d", 0, 1)];
  const believed = sizes(bounds, parts);
  strictEqual(believed["d-ipv4-0"], 1);
  strictEqual(Object.values(believed).reduce((sum, each) => sum + each, 0) <= LIMITS.ofAll, true);
  strictEqual(bounds.refusals().length, 3);
});

Deno.test("the addresses of entries that are not believed are refused, and nothing is decided twice", () => {
  const bounds = new RegistryBounds(LIMITS);
  const parts = [part("a", 0, 2, ["10.9.9.9"]), part("b", 0, 5)];
  const first = bounds.apply(parts);
  deepStrictEqual(bounds.refusals().map(({ ranges }) => ranges.map(rangeText)), [
    ["10.9.9.9"],
    ["10.98.0.5"],
  ]);
  const again = bounds.apply(parts);
  for (const [slice, believed] of first) strictEqual(again.get(slice), believed, slice);
  bounds.apply([part("a", 0, 2)]);
  deepStrictEqual(bounds.refusals(), []);
});

Deno.test("a few addresses far from each other cut off nobody in between, and a bound holds for them, too", () => {
  const bounds = new RegistryBounds(LIMITS);
  const far = Array.from({ length: 2_000 }, (_, i) => `${1 + i % 200}.${i % 250}.${i >> 8}.7`);
  bounds.apply([part("a", 0, 1, far)]);
  const [refusal] = bounds.refusals();
  deepStrictEqual(new Set(refusal?.ranges.map(({ prefix }) => prefix)), new Set([128]));
  strictEqual(refusal?.ranges.length, 1_024);
  match(refusal?.message ?? "", /2000 addresses stand in bad entries; 976 of them are too many/);
});

Deno.test("what lies between many is refused with them, but not what is known to be somebody else's", () => {
  const bounds = new RegistryBounds(LIMITS);
  const parts = [part("a", 0, 1, ["10.9.9.1", "10.9.9.2", "10.9.9.3"])];
  const refused = (foreign: ReadonlyMap<string, unknown>) => {
    bounds.apply(parts, foreign);
    return bounds.refusals().flatMap(({ ranges }) => ranges.map(rangeText));
  };
  deepStrictEqual(refused(new Map()), ["10.9.9.0/30"]);
  strictEqual(bounds.refusals()[0]?.isWide, true);
  deepStrictEqual(refused(new Map([["10.9.9.0", "a Service's"]])), ["10.9.9.1", "10.9.9.2/31"]);
});
