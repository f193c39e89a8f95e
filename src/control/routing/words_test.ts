import { strictEqual } from "node:assert/strict";
import { parseAddress } from "../../addresses.ts";
import { encodeEndpoint } from "../../kernel/maps.ts";
import { addressAt, portAt, wordsOf } from "./words.ts";

Deno.test("an endpoint's address and port are read as they were written", () => {
  const texts = ["10.0.0.1", "255.1.2.254", "0.0.0.0", "fd00::1", "::", "::1", "::fffe:1.2.3.4"];
  for (const text of texts) {
    for (const port of [0, 1, 255, 256, 8_080, 65_535]) {
      const address = parseAddress(text);
      const twice = new Uint8Array(40);
      for (const at of [0, 20]) twice.set(encodeEndpoint({ address, port }), at);
      const words = wordsOf(twice);
      for (const at of [0, 5]) {
        strictEqual(addressAt(words, at), text.replace("::fffe:1.2.3.4", "::fffe:102:304"));
        strictEqual(portAt(words, at + 4), port);
      }
    }
  }
});
