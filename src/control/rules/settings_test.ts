import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { settingsOf } from "./settings.ts";

Deno.test("a pod without annotations is permissive, and every identity may connect", () => {
  deepStrictEqual(settingsOf({}), {
    inbound: "permissive",
    isInboundImplied: false,
    egress: "permissive",
    policy: undefined,
    graceSeconds: undefined,
    problems: [],
  });
  deepStrictEqual(settingsOf({ "kube-gateway.io/inbound": "permissive" }), settingsOf({}));
});

Deno.test("strict is said for each direction", () => {
  const { inbound, egress } = settingsOf({ "kube-gateway.io/inbound": "strict" });
  deepStrictEqual([inbound, egress], ["strict", "permissive"]);
  strictEqual(settingsOf({ "kube-gateway.io/egress": "strict" }).egress, "strict");
});

Deno.test("what is not understood means the strictest, and says so", () => {
  const { inbound, policy, problems } = settingsOf({
    "kube-gateway.io/inbound": "Strict",
    "kube-gateway.io/allow": "everyone",
  });
  strictEqual(inbound, "strict");
  deepStrictEqual(policy, { rules: [], dryRun: false });
  match(problems[0] ?? "", /inbound must be "strict", "dry-run" or "permissive", not "Strict"/);
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
    strictEqual(of(allow).inbound, "strict", allow);
    strictEqual(of(allow, "strict").inbound, "strict", allow);
    const open = of(allow, "permissive");
    strictEqual(open.inbound, "permissive", allow);
    match(open.problems.at(-1) ?? "", /allow does not bind who is not encrypted/);
  }
  deepStrictEqual(of("dry-run: shop/web").inbound, "permissive");
  deepStrictEqual(of("dry-run: shop/web", "permissive").problems, []);
});

Deno.test("a namespace says for its pods what they do not say themselves, the agent what neither says", () => {
  const [inbound, egress] = ["kube-gateway.io/inbound", "kube-gateway.io/egress"];
  const said = (own: Record<string, string>, namespace = {}, defaults = {}) => {
    const { inbound, egress, policy } = settingsOf(own, namespace, defaults);
    return [inbound === "strict", egress === "strict", policy !== undefined];
  };
  deepStrictEqual(said({}, { [inbound]: "strict" }), [true, false, false]);
  deepStrictEqual(said({ [inbound]: "permissive" }, { [inbound]: "strict" }), [
    false,
    false,
    false,
  ]);
  deepStrictEqual(said({}, {}, { [egress]: "strict" }), [false, true, false]);
  deepStrictEqual(said({}, { [egress]: "permissive" }, { [egress]: "strict" }), [
    false,
    false,
    false,
  ]);
  deepStrictEqual(said({}, { "kube-gateway.io/allow": "shop/web" }), [true, false, true]);
});

Deno.test("a dry run refuses nothing, is the pod's or its namespace's, and no way below the floor", () => {
  const dry = { "kube-gateway.io/inbound": "dry-run", "kube-gateway.io/egress": "dry-run" };
  const strictness = (...args: Parameters<typeof settingsOf>) => {
    const { inbound, egress } = settingsOf(...args);
    return { inbound, egress };
  };
  deepStrictEqual(strictness(dry), { inbound: "dry-run", egress: "dry-run" });
  deepStrictEqual(strictness({}, dry), { inbound: "dry-run", egress: "dry-run" });
  deepStrictEqual(strictness({ "kube-gateway.io/inbound": "strict" }, dry), {
    inbound: "strict",
    egress: "dry-run",
  });
  deepStrictEqual(settingsOf(dry).problems, []);
  const floor = settingsOf(dry, { "kube-gateway.io/floor": "strict" });
  deepStrictEqual([floor.inbound, floor.egress], ["strict", "strict"]);
  strictEqual(floor.problems.length, 2);
  match(
    settingsOf({ ...dry, "kube-gateway.io/allow": "shop/web" }).problems.join(),
    /does not bind who is not encrypted, since .*inbound is "dry-run"/,
  );
});

Deno.test("no pod is less than its namespace's floor, and one that tries is told", () => {
  const floor = { "kube-gateway.io/floor": "strict" };
  const pods: Record<string, string>[] = [{}, { "kube-gateway.io/inbound": "permissive" }];
  for (const own of pods) {
    const { inbound, egress, problems } = settingsOf(own, floor);
    deepStrictEqual([inbound, egress], ["strict", "strict"]);
    strictEqual(problems.length, Object.keys(own).length);
  }
  match(
    settingsOf({ "kube-gateway.io/egress": "permissive" }, floor).problems.join(),
    /egress: no pod of this namespace is less than strict/,
  );
  const odd = settingsOf({}, { "kube-gateway.io/floor": "Strict" });
  strictEqual(odd.inbound, "strict");
  match(odd.problems.join(), /floor must be "strict", not "Strict": taken as strict/);
  deepStrictEqual(
    settingsOf({ "kube-gateway.io/floor": "strict" }).inbound,
    "permissive",
    "a pod has none",
  );
});
