import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import type { Pod } from "../../cluster/objects.ts";
import type { Desired, WantedEnrolment } from "./desired.ts";
import { settingsOf } from "./settings.ts";
import { verdictsOf } from "./verdicts.ts";

const POD: Pod = {
  uid: "u",
  namespace: "shop",
  name: "web",
  nodeName: "n1",
  serviceAccount: "web",
  annotations: {},
  addresses: ["10.0.0.1"],
  hostNetwork: false,
  phase: "Running",
  deleting: false,
};
const WANTED: WantedEnrolment = {
  uid: "u",
  namespace: "shop",
  name: "web",
  serviceAccount: "web",
  identity: "spiffe://td/ns/shop/sa/web",
  addresses: [],
  settings: settingsOf({}),
  isGuarded: false,
};
const ACTIVE = {
  wanted: WANTED,
  isWanted: true,
  flaws: [] as string[],
  renewalProblem: undefined,
  proved: 1,
  state: "active",
  reason: undefined,
  isNew: false,
  settings: settingsOf({}),
  addresses: ["10.0.0.1"],
} as const;
const nobody: Desired = { enrolments: new Map(), refused: [] };
const wanted: Desired = { enrolments: new Map([["u", WANTED]]), refused: [] };
const said = (status: "True" | "False", reason = "Enrolled", message = "") => ({
  ...POD,
  secured: { status, reason, message, since: "" },
});
const known = () => undefined;
const NOT_ANNOTATED =
  'its connections are not encrypted: the annotation kube-gateway.io is not "true"';
const short = (verdicts: ReturnType<typeof verdictsOf>) =>
  verdicts.map(({ status, reason }) => `${status} ${reason}`);

Deno.test("what is said of a pod", () => {
  const waiting = { ...ACTIVE, state: "waiting", reason: "no namespace" } as const;
  const leaving = { ...ACTIVE, state: "leaving", isWanted: false } as const;
  const flawed = { ...ACTIVE, flaws: ["its programs were detached"] };
  const refused: Desired = {
    enrolments: new Map(),
    refused: [{ uid: "u", namespace: "shop", name: "web", reason: "hostNetwork" }],
  };
  for (
    const [name, pod, desired, enrolments, expected] of [
      ["never annotated", POD, nobody, [], []],
      ["enrolled", POD, wanted, [ACTIVE], ["True Enrolled"]],
      ["waits", POD, wanted, [waiting], ["False Waiting"]],
      ["has only begun", POD, wanted, [{ ...waiting, isNew: true }], []],
      ["had been secured", said("True"), wanted, [{ ...waiting, isNew: true }], ["False Waiting"]],
      ["is leaving", said("True"), nobody, [leaving], ["False NotEnrolled"]],
      ["is leaving, and known to be", said("False", "NotEnrolled", NOT_ANNOTATED), nobody, [
        leaving,
      ], []],
      ["leaves though it is wanted", said("True"), wanted, [{ ...leaving, isWanted: true }], [
        "False Waiting",
      ]],
      ["is not proved", said("True"), wanted, [{ ...ACTIVE, proved: undefined }], [
        "False Waiting",
      ]],
      ["is wrong somewhere", said("True"), wanted, [flawed], ["False Repairing"]],
      ["is new, and wrong somewhere", POD, wanted, [{ ...flawed, isNew: true }], [
        "False Repairing",
      ]],
      ["cannot be renewed", said("True"), wanted, [{ ...ACTIVE, renewalProblem: "refused" }], [
        "False Repairing",
      ]],
      ["has left", said("True"), nobody, [], ["False NotEnrolled"]],
      ["is to be enrolled, nothing yet", said("False", "NotEnrolled"), wanted, [], []],
      ["refused", POD, refused, [], ["False Refused"]],
      ["refused after it was enrolled", said("True"), refused, [], ["False Refused"]],
    ] as const
  ) deepStrictEqual(short(verdictsOf([pod], desired, enrolments, known)), expected, name);
});

Deno.test("what is said already is not said again, another reason is", () => {
  const [verdict] = verdictsOf([POD], wanted, [ACTIVE], known);
  match(verdict?.message ?? "", /spiffe:\/\/td\/ns\/shop\/sa\/web at 10\.0\.0\.1/);
  const same = said("True", "Enrolled", verdict?.message);
  deepStrictEqual(verdictsOf([same], wanted, [ACTIVE], known), []);
  const moved = { ...ACTIVE, addresses: ["10.0.0.2"] };
  deepStrictEqual(short(verdictsOf([same], wanted, [moved], known)), ["True Enrolled"]);
});

Deno.test("what may not last is said of those that are secured", () => {
  const [verdict] = verdictsOf([POD], wanted, [ACTIVE], known, ["the bundle is damaged"]);
  match(verdict?.message ?? "", /mutual TLS 1\.3; the bundle is damaged$/);
  strictEqual(verdict?.status, "True");
});

Deno.test("a pod that the registry does not name is not secured", () => {
  const verdict = (pod: Pod, isNew: boolean) =>
    verdictsOf([pod], wanted, [{ ...ACTIVE, isNew }], () => "it has no Node");
  deepStrictEqual(verdict(POD, true), []);
  deepStrictEqual(short(verdict(POD, false)), ["False Waiting"]);
  match(verdict(POD, false)[0]?.message ?? "", /in clear/);
  deepStrictEqual(short(verdict(said("True"), true)), ["False Waiting"]);
});
