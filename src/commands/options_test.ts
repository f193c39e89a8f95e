import { strictEqual } from "node:assert/strict";
import { COMMANDS } from "./options.ts";

Deno.test("options that make no sense are refused", () => {
  for (
    const [name, good, bad] of [
      ["signer-name", ["kube-gateway.io/pod", "a.b/c.d"], [
        "pod",
        "a/b",
        "a.b/",
        "a.b/C",
        "a.b/c/d",
      ]],
      ["cert-ttl", ["10", "2592000"], ["9", "2592001", "1e3", ""]],
      ["health-address", [":8080", "[::]:1"], ["8080", "a:65536"]],
      ["agent-service-account", ["a.b"], ["a:b", ""]],
      ["trust-domain", ["cluster.local"], ["A", ""]],
    ] as const
  ) {
    const { check } = COMMANDS.signer.options[name];
    for (const value of good) strictEqual(check(value), undefined, `${name} ${value}`);
    for (const value of bad) strictEqual(typeof check(value), "string", `${name} ${value}`);
  }
});
