import { deepStrictEqual } from "node:assert/strict";
import type { KernelRefusal } from "../../kernel/refusals.ts";
import { refusalsOf } from "./refusal_log.ts";

Deno.test("a pod's refusals are those of its own cgroup, by reason", () => {
  const last = {
    namespaceCookie: 1n,
    process: 1,
    destination: { address: new Uint8Array(16), port: 1 },
    atMilliseconds: 0,
  };
  const refusals: KernelRefusal[] = [
    { cgroup: 7n, reason: "namespace", count: 3, last },
    { cgroup: 7n, reason: "egress", count: 1, last },
    { cgroup: 7n, reason: "inbound_dry_run", count: 2, last },
    { cgroup: 8n, reason: "egress", count: 9, last },
  ];
  deepStrictEqual(refusalsOf(refusals, 7n), {
    refusedInKernel: { namespace: 3, egress: 1 },
    wouldRefuseInKernel: { inbound_dry_run: 2 },
  });
  const none = { refusedInKernel: {}, wouldRefuseInKernel: {} };
  deepStrictEqual(refusalsOf(refusals, 9n), none);
  deepStrictEqual(refusalsOf(refusals, undefined), none);
});
