import { strictEqual } from "node:assert/strict";
import { type Progress, whyNotReady } from "./readiness.ts";

const DONE: Progress = {
  hasObjects: true,
  hasBegun: true,
  isSettled: true,
  enrolments: [],
  problems: 0,
};
const FINE = { state: "active", isPresent: true, flaws: [] as string[] } as const;

Deno.test("an agent is ready when it has tried every pod, or while another has charge of the node", () => {
  const notRead = "the cluster's objects have not been read yet";
  const notTried = "the pods of this node have not all been tried yet";
  for (
    const [progress, reason] of [
      [DONE, undefined],
      [{ hasObjects: false }, notRead],
      [{ hasObjects: false, hasBegun: false, isSettled: false }, notRead],
      [{ hasBegun: false, isSettled: false }, undefined],
      [{ isSettled: false }, notTried],
      [{ isSettled: false, enrolments: [FINE] }, notTried],
    ] as const
  ) {
    strictEqual(whyNotReady({ ...DONE, ...progress }), reason, JSON.stringify(progress));
  }
});

Deno.test("it is not ready while a pod lacks what it could have, or the node has a problem; and it names nobody", () => {
  const flawed = { ...FINE, flaws: ["its listener was closed"] };
  for (
    const [enrolments, problems, late] of [
      [[FINE, { ...FINE, state: "leaving" }, { ...FINE, state: "gone" }], 0, undefined],
      [[FINE, { ...FINE, state: "waiting" }], 0, 1],
      [[{ ...FINE, state: "enrolling" }, flawed, FINE], 0, 2],
      // What it waits for is not ours to bring: its containers have not been started.
      [[{ ...FINE, state: "waiting", isPresent: false }], 0, undefined],
      [[{ ...FINE, state: "enrolling", isPresent: false }], 0, undefined],
      [[{ ...flawed, isPresent: false }], 0, 1],
      [[{ ...flawed, state: "leaving" }], 0, undefined],
      [[FINE], 2, 0],
      [[flawed], 1, 1],
    ] as const
  ) {
    const reason = late === undefined
      ? undefined
      : `${late} pods are not as they should be, ${problems} problems of the node: ` +
        "kube-gateway status names them";
    strictEqual(
      whyNotReady({ ...DONE, enrolments, problems }),
      reason,
      JSON.stringify([enrolments, problems]),
    );
  }
});
