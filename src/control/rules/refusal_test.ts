import { strictEqual } from "node:assert/strict";
import { parseCidr } from "../../cidr.ts";
import { rangeOf, rangeText } from "./refusal.ts";

Deno.test("a range is written as it is read", () => {
  for (const text of ["10.0.0.0/8", "fd00::/8", "0.0.0.0/0", "::/0"]) {
    const range = parseCidr(text);
    strictEqual(range !== undefined && rangeText(range), text);
  }
  strictEqual(rangeText(rangeOf("10.1.2.3")), "10.1.2.3");
});
