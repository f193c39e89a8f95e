import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { IdentityError, type IdentityReason } from "./reasons.ts";
import { parseSpiffeId, spiffeId, validTrustDomain } from "./spiffe.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test("an ID that was made can be read", () => {
  for (
    const [trustDomain, namespace, serviceAccount] of [
      ["cluster.local", "default", "web"],
      ["a", "0", "a.b-c.d"],
      ["under_score.example", "n".repeat(63), "s".repeat(253)],
      ["t".repeat(255), "n".repeat(63), "s".repeat(253)],
    ] as const
  ) {
    const id = spiffeId(trustDomain, namespace, serviceAccount);
    deepStrictEqual(parseSpiffeId(bytes(id), trustDomain), { id, namespace, serviceAccount });
  }
  strictEqual(spiffeId("cluster.local", "shop", "web"), "spiffe://cluster.local/ns/shop/sa/web");
});

Deno.test("no part of an ID can smuggle in another", () => {
  for (
    const [trustDomain, namespace, serviceAccount] of [
      ["cluster.local/ns/a", "a", "b"],
      ["", "a", "b"],
      ["cluster.local", "a/sa/b", "c"],
      ["cluster.local", "a.b", "c"],
      ["cluster.local", "", "c"],
      ["cluster.local", "a", "b/c"],
      ["cluster.local", "a", ""],
      ["cluster.local", "a", ".."],
      ["cluster.local", "a", "b\0"],
    ] as const
  ) {
    throws(() => spiffeId(trustDomain, namespace, serviceAccount), TypeError);
  }
});

const REFUSED: [string, IdentityReason][] = [
  ["", "id_scheme"],
  ["https://cluster.local/ns/a/sa/b", "id_scheme"],
  ["SPIFFE://cluster.local/ns/a/sa/b", "id_scheme"],
  ["spiffe:/cluster.local/ns/a/sa/b", "id_scheme"],
  ["spiffe://", "id_trust_domain"],
  ["spiffe:///ns/a/sa/b", "id_trust_domain"],
  ["spiffe://Cluster.local/ns/a/sa/b", "id_trust_domain"],
  ["spiffe://cluster.local.evil/ns/a/sa/b", "id_trust_domain"],
  ["spiffe://evil.cluster.local/ns/a/sa/b", "id_trust_domain"],
  ["spiffe://cluster.loca/ns/a/sa/b", "id_trust_domain"],
  ["spiffe://cluster.local:443/ns/a/sa/b", "id_trust_domain"],
  ["spiffe://cluster.local", "id_path"],
  ["spiffe://cluster.local/", "id_path"],
  ["spiffe://cluster.local/ns/a/sa", "id_path"],
  ["spiffe://cluster.local/ns/a/sa/b/", "id_path"],
  ["spiffe://cluster.local/ns/a/sa/b/c", "id_path"],
  ["spiffe://cluster.local//ns/a/sa/b", "id_path"],
  ["spiffe://cluster.local/sa/b/ns/a", "id_path"],
  ["spiffe://cluster.local/NS/a/sa/b", "id_path"],
  ["spiffe://cluster.local/ns/a/pod/b", "id_path"],
  ["spiffe://cluster.local/ns//sa/b", "id_namespace"],
  ["spiffe://cluster.local/ns/A/sa/b", "id_namespace"],
  ["spiffe://cluster.local/ns/a.b/sa/b", "id_namespace"],
  ["spiffe://cluster.local/ns/../sa/b", "id_namespace"],
  [`spiffe://cluster.local/ns/${"a".repeat(64)}/sa/b`, "id_namespace"],
  ["spiffe://cluster.local/ns/a/sa/", "id_service_account"],
  ["spiffe://cluster.local/ns/a/sa/B", "id_service_account"],
  ["spiffe://cluster.local/ns/a/sa/..", "id_service_account"],
  ["spiffe://cluster.local/ns/a/sa/b_c", "id_service_account"],
  [`spiffe://cluster.local/ns/a/sa/${"b".repeat(254)}`, "id_service_account"],
  ["spiffe://user@cluster.local/ns/a/sa/b", "id_bad_byte"],
  ["spiffe://cluster.local/ns/a/sa/b?x", "id_bad_byte"],
  ["spiffe://cluster.local/ns/a/sa/b#x", "id_bad_byte"],
  ["spiffe://cluster.local/ns/a/sa/%62", "id_bad_byte"],
  ["spiffe://cluster.local/ns/a/sa/b\0", "id_bad_byte"],
  ["spiffe://cluster.local\0.evil/ns/a/sa/b", "id_bad_byte"],
  ["spiffe://cluster.local/ns/a/sa/b\n", "id_bad_byte"],
  ["spiffe://cluster.local/ns/a/sa/\u0441", "id_bad_byte"],
  ["spiffe://cluster.local/ns/a/sa/b, URI:spiffe://x", "id_bad_byte"],
  [`spiffe://cluster.local/ns/a/sa/${"b".repeat(2018)}`, "id_too_long"],
];

Deno.test("anything but the one form is refused with its reason", () => {
  for (const [id, reason] of REFUSED) {
    throws(() => parseSpiffeId(bytes(id), "cluster.local"), (error: unknown) => {
      strictEqual(error instanceof IdentityError && error.reason, reason, id);
      strictEqual((error as Error).message.length < 400, true, "bounded message");
      return true;
    });
  }
});

Deno.test("an ID of 2048 bytes is still judged by its form", () => {
  const id = `spiffe://cluster.local/ns/a/sa/${"b".repeat(2017)}`;
  strictEqual(id.length, 2048);
  throws(() => parseSpiffeId(bytes(id), "cluster.local"), { reason: "id_service_account" });
});

Deno.test("bytes that are not UTF-8 are refused, not replaced", () => {
  const id = bytes("spiffe://cluster.local/ns/a/sa/b");
  for (let at = 0; at < id.length; at++) {
    for (const byte of [0x00, 0x25, 0x80, 0xc0, 0xff]) {
      const bad = id.slice();
      bad[at] = byte;
      throws(() => parseSpiffeId(bad, "cluster.local"), { reason: "id_bad_byte" });
    }
  }
});

Deno.test("an invalid trust domain matches nothing, not even itself", () => {
  throws(() => parseSpiffeId(bytes("spiffe:///ns/a/sa/b"), ""), { reason: "id_trust_domain" });
  throws(() => parseSpiffeId(bytes("spiffe://A/ns/a/sa/b"), "A"), { reason: "id_trust_domain" });
});

Deno.test("trust domains", () => {
  for (const text of ["a", "cluster.local", "a_b-c.d", "9", "a".repeat(255)]) {
    strictEqual(validTrustDomain(text), true, text);
  }
  for (const text of ["", "A", "a/b", "a:1", "a b", "a\n", "é", "a".repeat(256)]) {
    strictEqual(validTrustDomain(text), false, text);
  }
});
