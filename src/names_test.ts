import { strictEqual } from "node:assert/strict";
import { isDnsLabel, isDnsSubdomain, isPodUid, quoted } from "./names.ts";

const a63 = "a".repeat(63);

Deno.test("names are judged as the API server judges them", () => {
  for (
    const [text, label, subdomain, uid] of [
      ["a", true, true, true],
      ["web-1", true, true, true],
      ["0", true, true, true],
      [a63, true, true, true],
      [a63 + "a", false, true, true],
      ["a.b-c.d", false, true, true],
      ["a".repeat(253), false, true, true],
      ["a".repeat(254), false, false, false],
      ["", false, false, false],
      ["-a", false, false, true],
      ["a-", false, false, true],
      ["a..b", false, false, true],
      [".a", false, false, true],
      ["A", false, false, true],
      ["a_b", false, false, true],
      [".", false, false, false],
      ["..", false, false, false],
      ["a/b", false, false, false],
      ["a\n", false, false, false],
      ["a\0", false, false, false],
      ["é", false, false, false],
      ["3c9a1c1e-8a0f-4c6e-9a69-0c7a9f6a6a11", true, true, true],
    ] as const
  ) {
    strictEqual(isDnsLabel(text), label, `label ${quoted(text)}`);
    strictEqual(isDnsSubdomain(text), subdomain, `subdomain ${quoted(text)}`);
    strictEqual(isPodUid(text), uid, `uid ${quoted(text)}`);
  }
});

Deno.test("a long hostile name is judged in linear time", () => {
  const start = performance.now();
  for (let i = 0; i < 1000; i++) isDnsSubdomain("a".repeat(252) + "!");
  strictEqual(performance.now() - start < 500, true);
});

Deno.test("quoted text cannot forge a log line", () => {
  strictEqual(quoted("a\nb"), '"a\\nb"');
  strictEqual(quoted('a"b'), '"a\\"b"');
  strictEqual(quoted("\u001b[31m\u0085\u2028\u202e"), '"\\u001b[31m\\u0085\\u2028\\u202e"');
  strictEqual(quoted("x".repeat(100), 4), '"xxxx…"');
});
