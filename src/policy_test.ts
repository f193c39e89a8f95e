import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { allowingRule, parsePolicy, policyText } from "./policy.ts";

const web = { namespace: "shop", serviceAccount: "web" };

Deno.test("rules are read however they are separated", () => {
  const expected = [
    { namespace: "shop", serviceAccount: "web", ports: [80, 443] },
    { namespace: "ops", serviceAccount: "*", ports: [] },
  ];
  for (
    const text of [
      "shop/web:80,443 ops/*",
      "shop/web:80,443,ops/*",
      " shop/web:80, 443;\n ops/*:* ",
    ]
  ) {
    deepStrictEqual(parsePolicy(text), { rules: expected, dryRun: false }, text);
    deepStrictEqual(parsePolicy(`dry-run: ${text}`), { rules: expected, dryRun: true }, text);
  }
  strictEqual(policyText(parsePolicy("dry-run:a/b:1,2 *")), "dry-run:a/b:1,2 */*");
});

Deno.test("empty means nobody", () => {
  for (const text of ["", "  ", "dry-run:"]) {
    const policy = parsePolicy(text);
    deepStrictEqual(policy.rules, []);
    strictEqual(allowingRule(policy, web, 80), undefined);
  }
  strictEqual(policyText(parsePolicy("")), "nobody");
});

Deno.test("a rule allows its identities on its ports and nothing else", () => {
  const allows = (text: string, port = 80) =>
    allowingRule(parsePolicy(text), web, port) !== undefined;
  for (
    const text of ["*", "*/*", "shop/*", "*/web", "shop/web", "shop/web:80", "a/b shop/web:1,80"]
  ) {
    strictEqual(allows(text), true, text);
  }
  for (const text of ["shop/api", "shop2/web", "web/shop", "shop/web:81", "*/*:8080", "shop/we"]) {
    strictEqual(allows(text), false, text);
  }
});

Deno.test("what is no policy is refused with a reason", () => {
  for (
    const [text, reason] of [
      ["shop", /"shop" is no namespace\/serviceaccount/],
      ["80", /is no namespace/],
      ["shop/web,80", /is no namespace/],
      ["shop/web:0", /"0" is no port/],
      ["shop/web:65536", /no port/],
      ["shop/web:080", /no port/],
      ["shop/web:http", /"http" is no port/],
      ["shop/web:80:81", /is no namespace/],
      ["shop/web/x", /is no namespace/],
      ["/web", /is no namespace's name/],
      ["shop/", /is no service account's name/],
      ["Shop/web", /is no namespace's name/],
      ["sho*/web", /is no namespace's name/],
      ["shop/web dry-run: a/b", /no namespace/],
      ["a/b ".repeat(65), /more than 64 rules/],
      [`a/b:${Array.from({ length: 17 }, (_, i) => i + 1).join(",")}`, /more than 16 ports/],
      ["x".repeat(1_000_000), /longer than 4096/],
    ] as const
  ) throws(() => parsePolicy(text), { name: "TypeError", message: reason }, text.slice(0, 50));
});
