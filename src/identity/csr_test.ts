import { match, notDeepStrictEqual, strictEqual } from "node:assert/strict";
import { newKeyAndRequest } from "./csr.ts";
import { openssl } from "./openssl_command.ts";

Deno.test("OpenSSL accepts the request and finds nothing in it but the key", async () => {
  // r and s are shorter by a byte in one of 128 requests each, longer by a sign byte in every
  // second.
  for (let i = 0; i < 24; i++) {
    const { csr } = await newKeyAndRequest();
    const { text } = await openssl(["req", "-inform", "DER", "-noout", "-verify", "-text"], csr);
    match(text, /verify OK/i);
    match(text, /Subject:\s*\n/);
    match(text, /NIST CURVE: P-256/);
    match(text, /Signature Algorithm: ecdsa-with-SHA256/);
    match(text, /Attributes:\s*\(none\)\s*Requested Extensions:\s*\n|Attributes:\s*\(none\)/);
  }
});

Deno.test("the keys are the request's, in the form that OpenSSL reads", async () => {
  const { privateKey, publicKey, csr } = await newKeyAndRequest();
  const fromKey = await openssl(["pkey", "-inform", "DER", "-pubout"], privateKey);
  const fromRequest = await openssl(["req", "-inform", "DER", "-noout", "-pubkey"], csr);
  match(fromKey.text, /BEGIN PUBLIC KEY/);
  strictEqual(fromRequest.text.includes(fromKey.text.trim()), true);
  strictEqual(fromRequest.text.replaceAll(/\s/g, "").includes(publicKey.toBase64()), true);
});

Deno.test("every key is new", async () => {
  const [a, b] = await Promise.all([newKeyAndRequest(), newKeyAndRequest()]);
  notDeepStrictEqual(a.privateKey, b.privateKey);
});
