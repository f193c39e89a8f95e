import { deepStrictEqual, throws } from "node:assert/strict";
import { decodePem, encodePem } from "./pem.ts";
import { openssl } from "./openssl_command.ts";

Deno.test("OpenSSL reads what is written, and what is written is read back", async () => {
  const made = await openssl(
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=x -outform DER"
      .split(" "),
  );
  const der = new Uint8Array(made.bytes);
  const text = encodePem([der, der], "CERTIFICATE");
  deepStrictEqual(decodePem(text, "CERTIFICATE"), [der, der]);
  const again = await openssl(["x509", "-outform", "DER"], new TextEncoder().encode(text));
  deepStrictEqual(new Uint8Array(again.bytes), der);
});

Deno.test("text between blocks and other labels are passed over, damage is not", () => {
  const block = encodePem([Uint8Array.of(1, 2)], "CERTIFICATE");
  const key = encodePem([Uint8Array.of(3)], "PRIVATE KEY");
  deepStrictEqual(decodePem(`# a\n${key}${block}b\n`, "CERTIFICATE"), [Uint8Array.of(1, 2)]);
  deepStrictEqual(decodePem("", "CERTIFICATE"), []);
  throws(() => decodePem("-----BEGIN CERTIFICATE-----\nAQ==", "CERTIFICATE"), /has no end/);
  throws(() => decodePem(block.replace("\nAQI=", "\n*QI="), "CERTIFICATE"), /no base64/);
  throws(() => decodePem(block.repeat(5), "CERTIFICATE", 4), /more than 4/);
});
