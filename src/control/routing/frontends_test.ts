/** With the kernel's own maps (root). */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { decodeEndpoint, decodeFrontend, encodeBackendKey } from "../../kernel/maps.ts";
import type { Redirector } from "../../kernel/redirector.ts";
import { text } from "../../native/socket.ts";
import { Frontends } from "./frontends.ts";
import { withMaps } from "../../kernel/maps_for_tests.ts";

/** What a relay would find: each frontend with its backends. */
function found({ frontends, backends }: Redirector): Record<string, string[]> {
  return Object.fromEntries(
    frontends.keys().map((key) => {
      const { set, count } = decodeFrontend(frontends.get(key) ?? new Uint8Array(12));
      const list = Array.from({ length: count }, (_, index) => {
        const entry = backends.get(encodeBackendKey(set, index));
        return entry === undefined ? "missing" : text(decodeEndpoint(entry));
      });
      return [text(decodeEndpoint(key)), list];
    }),
  );
}

function service(name: string, port: number, ...addresses: string[]) {
  const backends = addresses.map((address) => ({ address, port: 8080 }));
  const frontends = addresses.length === 0
    ? []
    : [{ address: "10.96.0.1", port, affinitySeconds: 0, backends }];
  return { service: name, frontends };
}

Deno.test("a frontend's backends are replaced whole, and nothing is left of the old ones", () =>
  withMaps((kernel) => {
    const frontends = new Frontends(kernel);
    frontends.apply([service("a/a", 80, "10.0.0.1", "10.0.0.2"), service("a/b", 81, "10.0.0.3")]);
    deepStrictEqual(found(kernel), {
      "10.96.0.1:80": ["10.0.0.1:8080", "10.0.0.2:8080"],
      "10.96.0.1:81": ["10.0.0.3:8080"],
    });
    frontends.apply([service("a/a", 80, "10.0.0.2")]);
    deepStrictEqual(found(kernel)["10.96.0.1:80"], ["10.0.0.2:8080"]);
    strictEqual(kernel.backends.keys().length, 2);
    frontends.apply([service("a/a", 90, "10.0.0.2")]); // another port: another frontend
    deepStrictEqual(Object.keys(found(kernel)).sort(), ["10.96.0.1:81", "10.96.0.1:90"]);
    frontends.apply([service("a/a", 90), service("a/b", 81)]);
    deepStrictEqual([kernel.frontends.keys().length, kernel.backends.keys().length], [0, 0]);
  }));

Deno.test("what has not changed is not written again", () =>
  withMaps((kernel) => {
    const frontends = new Frontends(kernel);
    frontends.apply([service("a/a", 80, "10.0.0.1")]);
    const value = () => kernel.frontends.keys().map((key) => kernel.frontends.get(key));
    const before = value();
    frontends.apply([service("a/a", 80, "10.0.0.1")]);
    deepStrictEqual(value(), before);
  }));

Deno.test("an earlier agent's entries are in use until they are pruned, and no number is used twice", () =>
  withMaps((kernel) => {
    new Frontends(kernel).apply([
      service("a/a", 80, "10.0.0.1"),
      service("a/gone", 81, "10.0.0.2", "10.0.0.3"),
    ]);
    const next = new Frontends(kernel);
    next.apply([service("a/a", 80, "10.0.0.9")]);
    deepStrictEqual(found(kernel), {
      "10.96.0.1:80": ["10.0.0.9:8080"],
      "10.96.0.1:81": ["10.0.0.2:8080", "10.0.0.3:8080"],
    });
    next.prune();
    deepStrictEqual(found(kernel), { "10.96.0.1:80": ["10.0.0.9:8080"] });
    strictEqual(kernel.backends.keys().length, 1);
  }));

Deno.test("a full map costs the Service that met it, which has what found room, and no other", () =>
  withMaps((kernel) => {
    const frontends = new Frontends(kernel);
    const room = 524_288; // bpf/maps.h
    const many = Array.from({ length: room }, (_, index) => {
      const [a, b, c] = [index >> 16, (index >> 8) & 255, index & 255];
      return { address: `10.${a}.${b}.${c}`, port: 8080 };
    });
    const large = { address: "10.96.0.2", port: 80, affinitySeconds: 0, backends: many };
    frontends.apply([service("a/a", 80, "10.0.0.1"), { service: "a/large", frontends: [large] }]);
    deepStrictEqual(frontends.problems().map(({ where }) => where), ["a/large"]);
    deepStrictEqual(found(kernel)["10.96.0.1:80"], ["10.0.0.1:8080"]);
    strictEqual(found(kernel)["10.96.0.2:80"]?.includes("missing"), false);
    frontends.apply([service("a/b", 81, "10.0.0.2")]);
    deepStrictEqual(found(kernel)["10.96.0.1:81"], [], "refused, not in clear");
    frontends.apply([{ service: "a/large", frontends: [] }, service("a/b", 81, "10.0.0.2")]);
    deepStrictEqual(found(kernel)["10.96.0.1:81"], ["10.0.0.2:8080"]);
    deepStrictEqual(frontends.problems(), []);
  }));
