import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { encodePodUid } from "./pod_uid.ts";
import { IDENTITY_REASONS, IdentityError, type IdentityReason } from "./reasons.ts";
import type { LeafFacts } from "../leaf_facts.ts";
import { identityOfLeaf, requireClient, requireServer } from "./verify.ts";

const ID = "spiffe://cluster.local/ns/shop/sa/web";
const bytes = (text: string) => new TextEncoder().encode(text);
const fd00_1 = Uint8Array.of(0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);

const GOOD: LeafFacts = {
  uriSans: [bytes(ID)],
  ipSans: [Uint8Array.of(10, 0, 0, 1), fd00_1],
  directoryAttributes: encodePodUid("uid-1"),
  hasBasicConstraints: true,
  isCa: false,
  keyUsage: 0x80,
  keyUsageCritical: true,
  extendedKeyUsage: 0x3,
  subjectEmpty: true,
  sanCritical: true,
};

Deno.test("a pod's certificate names its identity and addresses", () => {
  const expected = {
    id: ID,
    namespace: "shop",
    serviceAccount: "web",
    addresses: ["10.0.0.1", "fd00::1"],
    podUid: "uid-1",
  };
  for (
    const harmless of [
      {},
      { extendedKeyUsage: undefined }, // X509-SVID 4.4: optional
      { extendedKeyUsage: 0x3 | 0x100 },
      { keyUsage: 0x80 | 0x20 | 0x08 }, // keyEncipherment and keyAgreement are allowed, 4.3
      { subjectEmpty: false, sanCritical: false },
      { ipSans: [...GOOD.ipSans, Uint8Array.of(10, 0, 0, 1)] },
    ] satisfies Partial<LeafFacts>[]
  ) {
    deepStrictEqual(identityOfLeaf({ ...GOOD, ...harmless }, "cluster.local"), expected);
  }
});

const HOSTILE: [string, Partial<LeafFacts>, IdentityReason][] = [
  ["no basicConstraints", { hasBasicConstraints: false }, "no_basic_constraints"],
  ["a CA's certificate as leaf", { isCa: true }, "ca_as_leaf"],
  ["no keyUsage", { keyUsage: undefined }, "no_key_usage"],
  ["keyUsage not critical", { keyUsageCritical: false }, "key_usage_not_critical"],
  ["no digitalSignature", { keyUsage: 0x08 }, "no_digital_signature"],
  ["keyCertSign", { keyUsage: 0x84 }, "signs_certificates"],
  ["cRLSign", { keyUsage: 0x82 }, "signs_crls"],
  ["serverAuth only", { extendedKeyUsage: 0x1 }, "extended_key_usage"],
  ["clientAuth only", { extendedKeyUsage: 0x2 }, "extended_key_usage"],
  ["other extended usage", { extendedKeyUsage: 0x8 }, "extended_key_usage"],
  ["no URI SAN", { uriSans: [] }, "no_uri_san"],
  ["two URI SANs", { uriSans: [bytes(ID), bytes("https://x")] }, "two_uri_sans"],
  ["the same URI SAN twice", { uriSans: [bytes(ID), bytes(ID)] }, "two_uri_sans"],
  ["nothing critical names it", { sanCritical: false }, "san_not_critical"],
  ["short IP SAN", { ipSans: [Uint8Array.of(10, 0, 0)] }, "bad_ip_san"],
  ["IP SAN with a mask", { ipSans: [new Uint8Array(8)] }, "bad_ip_san"],
  ["mapped IP SAN", {
    ipSans: [Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1)],
  }, "bad_ip_san"],
  ["nine IP SANs", {
    ipSans: Array.from({ length: 9 }, (_, i) => Uint8Array.of(10, 0, 0, i)),
  }, "too_many_ip_sans"],
  [
    "another trust domain",
    { uriSans: [bytes("spiffe://evil/ns/shop/sa/web")] },
    "id_trust_domain",
  ],
  ["a CA's root ID", { uriSans: [bytes("spiffe://cluster.local")] }, "id_path"],
  ["a NUL", { uriSans: [bytes(ID + "\0.evil")] }, "id_bad_byte"],
  ["a huge ID", { uriSans: [bytes("spiffe://" + "a".repeat(100_000))] }, "id_too_long"],
];

Deno.test("hostile certificates are refused with their reason", () => {
  for (const [name, change, reason] of HOSTILE) {
    throws(() => identityOfLeaf({ ...GOOD, ...change }, "cluster.local"), (error: unknown) => {
      strictEqual(error instanceof IdentityError && error.reason, reason, name);
      return true;
    });
  }
});

Deno.test("outbound: the server must have the address and the identity the registry names", () => {
  const peer = identityOfLeaf(GOOD, "cluster.local");
  requireServer(peer, { address: "10.0.0.1", id: ID });
  requireServer(peer, { address: "fd00::1", id: ID });
  throws(() => requireServer(peer, { address: "10.0.0.2", id: ID }), {
    reason: "address_mismatch",
  });
  throws(
    () => requireServer(peer, { address: "10.0.0.1", id: "spiffe://cluster.local/ns/shop/sa/db" }),
    { reason: "identity_mismatch" },
  );
  throws(() => requireServer(peer, { address: "", id: ID }), { reason: "address_mismatch" });
  const nowhere = identityOfLeaf({ ...GOOD, ipSans: [] }, "cluster.local");
  throws(() => requireServer(nowhere, { address: "10.0.0.1", id: ID }), {
    reason: "address_mismatch",
    message: /not among none/,
  });
});

Deno.test("inbound: nobody can lend himself another pod's address", () => {
  const peer = identityOfLeaf(GOOD, "cluster.local");
  requireClient(peer, "10.0.0.1", undefined);
  requireClient(peer, "fd00::1", ID);
  throws(() => requireClient(peer, "10.0.0.2", undefined), { reason: "address_mismatch" });
  throws(() => requireClient(peer, "10.0.0.2", ID), { reason: "address_mismatch" });
  throws(() => requireClient(peer, "10.0.0.1", "spiffe://cluster.local/ns/shop/sa/db"), {
    reason: "identity_mismatch",
  });
});

Deno.test("reason codes are fit to be metric labels", () => {
  for (const reason of Object.keys(IDENTITY_REASONS)) {
    strictEqual(/^[a-z_]{4,32}$/.test(reason), true, reason);
  }
});
