import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { settingsOf } from "./settings.ts";

Deno.test("a pod without annotations is permissive, and every identity may connect", () => {
  deepStrictEqual(settingsOf({}), {
    strictInbound: false,
    isInboundImplied: false,
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

Deno.test("a policy binds everybody, unless plain connections are let in all the same, which is a problem", () => {
  const of = (allow: string, inbound?: string) =>
    settingsOf({
      "kube-gateway.io/allow": allow,
      ...inbound === undefined ? {} : { "kube-gateway.io/inbound": inbound },
    });
  for (const allow of ["shop/web", "", "everyone?"]) {
    strictEqual(of(allow).strictInbound, true, allow);
    strictEqual(of(allow, "strict").strictInbound, true, allow);
    const open = of(allow, "permissive");
    strictEqual(open.strictInbound, false, allow);
    match(open.problems.at(-1) ?? "", /allow does not bind who is not encrypted/);
  }
  deepStrictEqual(of("dry-run: shop/web").strictInbound, false);
  deepStrictEqual(of("dry-run: shop/web", "permissive").problems, []);
});
