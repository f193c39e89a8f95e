import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { settingsOf } from "./settings.ts";

Deno.test("a pod without annotations is permissive, and every identity may connect", () => {
  deepStrictEqual(settingsOf({}), {
    strictInbound: false,
    strictEgress: false,
    policy: undefined,
    graceSeconds: undefined,
    problems: [],
  });
  deepStrictEqual(settingsOf({ "kube-gateway.io/inbound": "permissive" }), settingsOf({}));
});

Deno.test("strict is said for each direction", () => {
  const { strictInbound, strictEgress } = settingsOf({ "kube-gateway.io/inbound": "strict" });
  deepStrictEqual([strictInbound, strictEgress], [true, false]);
  strictEqual(settingsOf({ "kube-gateway.io/egress": "strict" }).strictEgress, true);
});

Deno.test("what is not understood means the strictest, and says so", () => {
  const { strictInbound, policy, problems } = settingsOf({
    "kube-gateway.io/inbound": "Strict",
    "kube-gateway.io/allow": "everyone",
  });
  strictEqual(strictInbound, true);
  deepStrictEqual(policy, { rules: [], dryRun: false });
  match(problems[0] ?? "", /inbound must be "strict" or "permissive", not "Strict"/);
  match(problems[1] ?? "", /allow: "everyone" is no namespace.*nobody may connect/);
});

Deno.test("a dry run that is not understood is a dry run still", () => {
  const { policy, problems } = settingsOf({ "kube-gateway.io/allow": "dry-run: everyone" });
  deepStrictEqual(policy, { rules: [], dryRun: true });
  match(problems[0] ?? "", /every stream is told/);
});
