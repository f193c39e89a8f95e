/** With the kernel's own maps (root). */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import {
  CAPACITY,
  decodeEndpoint,
  decodeFrontend,
  encodeBackendKey,
  encodeEndpoint,
  encodeFrontend,
} from "../../kernel/maps.ts";
import type { Redirector } from "../../kernel/redirector.ts";
import { parseAddress } from "../../addresses.ts";
import { withMaps } from "../../kernel/maps_for_tests.ts";
import { text } from "../../native/socket.ts";
import { rangeText, type Refusal } from "../rules/refusal.ts";
import type { ServiceChange } from "../rules/service_index.ts";
import { Frontends } from "./frontends.ts";
import { ROOT } from "../../root_for_tests.ts";

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

function service(name: string, port: number, ...addresses: string[]): ServiceChange {
  const backends = addresses.map((address) => ({ address, port: 8080 }));
  const frontends = addresses.length === 0
    ? []
    : [{ address: "10.96.0.1", port, affinitySeconds: 0, backends }];
  return { service: name, created: 0, frontends };
}

/** One address, many ports. */
function large(name: string, address: string, ports: number, endpoints = 1): ServiceChange {
  const backends = Array.from({ length: endpoints }, (_, index) => ({
    address: `10.1.${index >> 8}.${index & 255}`,
    port: 8080,
  }));
  const frontends = Array.from({ length: ports }, (_, port) => ({
    address,
    port: port + 1,
    affinitySeconds: 0,
    backends,
  }));
  return { service: name, created: 0, frontends };
}

const NOTHING = () => {};

function refused(refusals: readonly Refusal[]): Record<string, string[]> {
  return Object.fromEntries(refusals.map(({ where, ranges }) => [where, ranges.map(rangeText)]));
}

Deno.test(
  "a frontend's backends are replaced whole, and nothing is left of the old ones",
  ROOT,
  () =>
    withMaps((kernel) => {
      const frontends = new Frontends(kernel);
      frontends.apply(
        [service("a/a", 80, "10.0.0.1", "10.0.0.2"), service("a/b", 81, "10.0.0.3")],
        NOTHING,
      );
      deepStrictEqual(found(kernel), {
        "10.96.0.1:80": ["10.0.0.1:8080", "10.0.0.2:8080"],
        "10.96.0.1:81": ["10.0.0.3:8080"],
      });
      frontends.apply([service("a/a", 80, "10.0.0.2")], NOTHING);
      deepStrictEqual(found(kernel)["10.96.0.1:80"], ["10.0.0.2:8080"]);
      strictEqual(kernel.backends.keys().length, 2);
      frontends.apply([service("a/a", 90, "10.0.0.2")], NOTHING); // another port: another frontend
      deepStrictEqual(Object.keys(found(kernel)).sort(), ["10.96.0.1:81", "10.96.0.1:90"]);
      frontends.apply([service("a/a", 90), service("a/b", 81)], NOTHING);
      deepStrictEqual([kernel.frontends.keys().length, kernel.backends.keys().length], [0, 0]);
    }),
);

Deno.test("what has not changed is not written again", ROOT, () =>
  withMaps((kernel) => {
    const frontends = new Frontends(kernel);
    frontends.apply([service("a/a", 80, "10.0.0.1")], NOTHING);
    const value = () => kernel.frontends.keys().map((key) => kernel.frontends.get(key));
    const before = value();
    frontends.apply([service("a/a", 80, "10.0.0.1")], NOTHING);
    deepStrictEqual(value(), before);
  }));

Deno.test(
  "an earlier agent's entries are in use until they are pruned, and no number is used twice",
  ROOT,
  () =>
    withMaps((kernel) => {
      new Frontends(kernel).apply([
        service("a/a", 80, "10.0.0.1"),
        service("a/gone", 81, "10.0.0.2", "10.0.0.3"),
      ], NOTHING);
      const next = new Frontends(kernel);
      next.apply([service("a/a", 80, "10.0.0.9")], NOTHING);
      deepStrictEqual(found(kernel), {
        "10.96.0.1:80": ["10.0.0.9:8080"],
        "10.96.0.1:81": ["10.0.0.2:8080", "10.0.0.3:8080"],
      });
      next.prune();
      deepStrictEqual(found(kernel), { "10.96.0.1:80": ["10.0.0.9:8080"] });
      strictEqual(kernel.backends.keys().length, 1);
    }),
);

Deno.test(
  "a Service takes over another's address in one update, and two swap theirs",
  ROOT,
  () =>
    withMaps((kernel) => {
      const frontends = new Frontends(kernel);
      for (const order of ["old first", "new first"]) {
        frontends.apply([service("a/old", 80, "10.0.0.1")], NOTHING);
        const changes = [service("a/old", 80), service("a/new", 80, "10.0.0.2")];
        frontends.apply(order === "old first" ? changes : changes.toReversed(), NOTHING);
        deepStrictEqual(found(kernel), { "10.96.0.1:80": ["10.0.0.2:8080"] }, order);
        frontends.apply([service("a/new", 80)], NOTHING);
        deepStrictEqual(found(kernel), {});
      }
      frontends.apply([service("a/p", 80, "10.0.0.1"), service("a/q", 81, "10.0.0.2")], NOTHING);
      frontends.apply([service("a/p", 81, "10.0.0.1"), service("a/q", 80, "10.0.0.2")], NOTHING);
      deepStrictEqual(found(kernel), {
        "10.96.0.1:80": ["10.0.0.2:8080"],
        "10.96.0.1:81": ["10.0.0.1:8080"],
      });
      strictEqual(kernel.backends.keys().length, 2);
      frontends.apply([service("a/q", 81, "10.0.0.3")], NOTHING); // both claim it, for good
      deepStrictEqual(found(kernel), { "10.96.0.1:81": ["10.0.0.1:8080"] });
      deepStrictEqual(frontends.problems().map(({ where }) => where), ["10.96.0.1:81"]);
    }),
);

Deno.test(
  "a namespace beyond its share is refused its own later Services, before they are taken away",
  ROOT,
  () =>
    withMaps((kernel) => {
      const limits = {
        ofService: { frontends: 10, backends: 100 },
        ofNamespace: { frontends: 12, backends: 100 },
        ofAll: { frontends: 1000, backends: 1000 },
      };
      const frontends = new Frontends(kernel, limits);
      frontends.apply([large("evil/2", "10.96.1.2", 8)], NOTHING);
      let told: Record<string, string[]> | undefined;
      frontends.apply(
        [large("evil/1", "10.96.1.1", 8), service("a/a", 80, "10.0.0.1")],
        (refusals) => {
          told ??= refused(refusals);
          if (kernel.frontends.keys().length !== 8) return;
          deepStrictEqual(
            refused(refusals),
            { "evil/2": ["10.96.1.2"] },
            "while it is there still",
          );
        },
      );
      deepStrictEqual(told, { "evil/2": ["10.96.1.2"] });
      deepStrictEqual(refused(frontends.refusals()), { "evil/2": ["10.96.1.2"] });
      strictEqual(frontends.size, 9);
      deepStrictEqual(found(kernel)["10.96.0.1:80"], ["10.0.0.1:8080"]);
      strictEqual(found(kernel)["10.96.1.2:1"], undefined);
      frontends.apply([{ service: "evil/1", created: 0, frontends: [] }], NOTHING);
      deepStrictEqual(frontends.refusals(), []);
      deepStrictEqual(found(kernel)["10.96.1.2:1"], ["10.1.0.0:8080"]);
    }),
);

Deno.test(
  "with a full map a Service is refused, the others go on, and it is tried again",
  ROOT,
  () =>
    withMaps((kernel) => {
      const frontends = new Frontends(kernel);
      frontends.prune();
      frontends.apply([service("a/a", 80, "10.0.0.1")], NOTHING);
      const key = new Uint8Array(kernel.frontends.keySize).fill(0xfe, 16);
      const foreign = (number: number) => {
        new DataView(key.buffer).setUint32(0, number, true);
        return key;
      };
      for (let number = 1; number < CAPACITY.frontends; number++) {
        kernel.frontends.set(foreign(number), new Uint8Array(12));
      }
      frontends.apply([service("a/b", 81, "10.0.0.2")], NOTHING);
      deepStrictEqual(refused(frontends.refusals()), { "a/b": ["10.96.0.1"] });
      const at = (port: number) =>
        kernel.frontends.get(encodeEndpoint({ address: parseAddress("10.96.0.1"), port }));
      strictEqual(at(81), undefined);
      strictEqual(kernel.backends.keys().length, 1, "nothing of it is left");
      frontends.apply([service("a/a", 80, "10.0.0.1", "10.0.0.9")], NOTHING);
      strictEqual(decodeFrontend(at(80) ?? new Uint8Array(12)).count, 2);
      for (let number = 1; number < 10; number++) kernel.frontends.delete(foreign(number));
      frontends.apply([], NOTHING);
      deepStrictEqual(frontends.refusals(), []);
      strictEqual(decodeFrontend(at(81) ?? new Uint8Array(12)).count, 1);
    }),
);

Deno.test(
  "an audit finds what was removed, changed and added behind our back, and says how much",
  ROOT,
  () =>
    withMaps((kernel) => {
      const frontends = new Frontends(kernel);
      frontends.apply(
        [large("a/a", "10.96.1.1", 50, 20), service("a/b", 80, "10.0.0.1", "10.0.0.2")],
        NOTHING,
      );
      const before = found(kernel);
      const at = (port: number) => encodeEndpoint({ address: parseAddress("10.96.1.1"), port });
      const break_ = () => {
        const { set, count } = decodeFrontend(kernel.frontends.get(at(7)) ?? new Uint8Array(12));
        kernel.frontends.delete(at(5));
        kernel.frontends.set(at(6), encodeFrontend({ set, count, affinity: 0 }));
        kernel.frontends.set(at(9_999), encodeFrontend({ set, count, affinity: 0 }));
        kernel.backends.delete(encodeBackendKey(set, 3));
        kernel.backends.set(encodeBackendKey(set, 4), at(1));
        kernel.backends.set(encodeBackendKey(set, count), at(1));
        kernel.backends.set(encodeBackendKey(1_000_000, 0), at(1));
      };
      deepStrictEqual(frontends.audit(), {}, "an earlier agent's entries are in use");
      frontends.prune();
      deepStrictEqual(frontends.audit(), { backend: 0, frontend: 0 });
      break_();
      deepStrictEqual(frontends.audit(), { backend: 4, frontend: 3 });
      deepStrictEqual(frontends.audit(), { backend: 0, frontend: 0 });
      deepStrictEqual(found(kernel), before);
      strictEqual(kernel.backends.keys().length, 50 * 20 + 2);
    }),
);
