import { deepStrictEqual, match, ok, strictEqual, throws } from "node:assert/strict";
import { newCa } from "../identity/new_ca.ts";
import { decodePem, encodePem } from "../identity/pem.ts";
import {
  bundleObject,
  type BundleRoot,
  fingerprint,
  isPropagated,
  nextBundle,
  readBundle,
} from "./bundle.ts";

const T = (seconds: number) => new Date(Date.UTC(2027, 0, 1) + seconds * 1000);
const newRoot = async () =>
  decodePem((await newCa("cluster.local")).certificate, "CERTIFICATE")[0] ?? new Uint8Array();
const [A, B] = [await newRoot(), await newRoot()];
const until = (root: Uint8Array, time: Date) => new Map([[fingerprint(root), time]]);
const dersOf = (bundle: readonly BundleRoot[]) => bundle.map(({ der }) => der);

Deno.test("the first root signs at once, a later one when all pods may know it", () => {
  const first = nextBundle([], { root: A, now: T(0) });
  deepStrictEqual(dersOf(first), [A]);
  ok(isPropagated(first, A, T(0), 60_000));

  const second = nextBundle(first, { root: B, now: T(0), issuedUntil: until(A, T(100)) });
  deepStrictEqual(dersOf(second), [A, B]);
  ok(isPropagated(second, A, T(1), 60_000));
  ok(!isPropagated(second, B, T(59), 60_000));
  ok(isPropagated(second, B, T(60), 60_000));
  ok(!isPropagated(second, Uint8Array.of(1), T(60), 0), "a root that is not in it");
});

Deno.test("a root stays until its last certificate has expired, and the Secret's always", () => {
  const bundle: BundleRoot[] = [
    { der: A, addedAt: T(0), neededUntil: T(100) },
    { der: B, addedAt: T(10) },
  ];
  const at = (seconds: number, root = B) => dersOf(nextBundle(bundle, { root, now: T(seconds) }));
  deepStrictEqual(at(99), [A, B]);
  deepStrictEqual(at(101), [B]);
  deepStrictEqual(at(1000, A), [A], "B has never signed");
  const persons = nextBundle([{ der: A }], { root: B, now: T(1e6) });
  deepStrictEqual(dersOf(persons), [A, B], "what a person has put there stays");
});

Deno.test("until when a root is needed only ever moves on", () => {
  const issued = (time: Date) => ({ root: A, now: T(0), issuedUntil: until(A, time) });
  const once = nextBundle([], issued(T(50)));
  strictEqual(once[0]?.neededUntil?.getTime(), T(50).getTime());
  strictEqual(nextBundle(once, issued(T(40))), once, "nothing to be written");
  strictEqual(nextBundle(once, issued(T(60)))[0]?.neededUntil?.getTime(), T(60).getTime());
  strictEqual(nextBundle(once, { root: A, now: T(49) }), once);
});

Deno.test("an expired root goes although a record would keep it", () => {
  const far = new Date(Date.now() + 20 * 365 * 86_400_000);
  const bundle = [
    { der: A, addedAt: T(0), neededUntil: new Date(far.getTime() + 1) },
    { der: B, addedAt: T(0) },
  ];
  deepStrictEqual(dersOf(nextBundle(bundle, { root: B, now: far })), [B]);
});

Deno.test("what is written is read back, with what others have put there", () => {
  const bundle: BundleRoot[] = [{ der: A, addedAt: T(0), neededUntil: T(100) }, { der: B }];
  const existing = {
    metadata: { resourceVersion: "7", annotations: { mine: "1" } },
    data: { other: "x" },
  };
  const object = bundleObject(bundle, "kube-gateway", existing) as typeof existing;
  deepStrictEqual(readBundle(object), bundle);
  strictEqual(object.metadata.resourceVersion, "7");
  strictEqual(object.metadata.annotations.mine, "1");
  strictEqual(object.data.other, "x");
  match(JSON.stringify(object), /"name":"kube-gateway-trust-bundle","namespace":"kube-gateway"/);
});

Deno.test("damaged records keep their root, damaged PEM is nobody's to repair", () => {
  const configMap = (records: string, pem = encodePem([A, A], "CERTIFICATE")) => ({
    metadata: { annotations: { "kube-gateway.io/roots": records } },
    data: { "ca-bundle.pem": pem },
  });
  const id = fingerprint(A);
  const damaged = ["", "{", "[]", "7", `{"${id}":7}`, `{"${id}":{"addedAt":"x","neededUntil":1}}`];
  for (const records of damaged) deepStrictEqual(readBundle(configMap(records)), [{ der: A }]);
  deepStrictEqual(readBundle({ metadata: {} }), []);
  throws(() => readBundle(configMap("", "-----BEGIN CERTIFICATE-----\nAQ==\n")), /no end/);
  throws(() => readBundle(configMap("", encodePem([Uint8Array.of(1)], "CERTIFICATE"))));
});
