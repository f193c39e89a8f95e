import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { WantedEnrolment } from "./desired.ts";
import { readPod } from "../../cluster/objects.ts";
import { namedAddresses, ownAddresses, registryEntries } from "./registry_entries.ts";
import { settingsOf } from "./settings.ts";

type EnrolmentOf = Parameters<typeof registryEntries>[4];

const WEB = { uid: "u", namespace: "shop", name: "web", identity: "spiffe://td/ns/shop/sa/web" };
const WANTED: WantedEnrolment = {
  ...WEB,
  serviceAccount: "web",
  addresses: ["10.0.0.1"],
  settings: settingsOf({}),
  isGuarded: false,
};
const ACTIVE = {
  state: "active",
  addresses: ["10.0.0.1"],
  unnamed: [] as string[],
  certificateFlaw: undefined as string | undefined,
} as const;
const ENTRY = { ...WEB, node: "n1", addresses: ["10.0.0.1"], ready: true };

/** Of a node with one pod. */
function entries(
  enrolment: ReturnType<EnrolmentOf>,
  wanted = WANTED,
  named = ["10.0.0.1"],
  isOurs = (_: string) => true,
) {
  const desired = { enrolments: new Map([[wanted.uid, wanted]]), refused: [] };
  return registryEntries(
    desired,
    "n1",
    new Set(named),
    isOurs,
    (uid) => uid === wanted.uid ? enrolment : undefined,
  );
}

Deno.test("a pod that can be served is ready", () => {
  deepStrictEqual(entries(ACTIVE), [ENTRY]);
});

Deno.test("a pod that cannot be served is named all the same, or it would be reached in clear", () => {
  for (const state of ["waiting", "enrolling", "leaving", "gone"] as const) {
    deepStrictEqual(entries({ ...ACTIVE, state }), [{ ...ENTRY, ready: false }], state);
  }
  deepStrictEqual(entries(undefined), [{ ...ENTRY, ready: false }], "not begun");
  const expired = { ...ACTIVE, certificateFlaw: "it has expired" };
  deepStrictEqual(entries(expired), [{ ...ENTRY, ready: false }], "nobody would take it");
});

Deno.test("its object says where a pod is; while that names no address, its namespace does", () => {
  const unaddressed = { ...WANTED, addresses: [] };
  const found = { ...ACTIVE, addresses: ["10.0.0.7", "fd00::7"] };
  deepStrictEqual(entries(found), [ENTRY]);
  deepStrictEqual(entries(found, unaddressed), [{ ...ENTRY, addresses: found.addresses }]);
  deepStrictEqual(entries(undefined, unaddressed), [{ ...ENTRY, addresses: [], ready: false }]);
});

Deno.test("an address that another pod's object names is that pod's, whoever else holds it", () => {
  const unnamed = ["10.0.0.2", "fd00::1"];
  deepStrictEqual(entries({ ...ACTIVE, unnamed }, WANTED, ["10.0.0.1", "10.0.0.2"]), [
    ENTRY,
    { ...ENTRY, addresses: ["fd00::1"], ready: false },
  ]);
});

Deno.test("an address that its object names no more is refused, the others are as before", () => {
  const unnamed = ["fd00::1"];
  const refused = { ...ENTRY, addresses: unnamed, ready: false };
  deepStrictEqual(entries({ ...ACTIVE, unnamed }), [ENTRY, refused]);
  deepStrictEqual(
    entries({ ...ACTIVE, state: "waiting", unnamed }),
    [{ ...ENTRY, ready: false }, refused],
  );
});

Deno.test("who asks for encryption and cannot have it is refused; what was no request is not named", () => {
  const refused = [
    {
      ...{ uid: "v", namespace: "kube-system", name: "static", reason: "a static pod" },
      registered: { identity: "spiffe://td/ns/kube-system/sa/default", addresses: ["10.0.0.9"] },
    },
    { uid: "w", namespace: "shop", name: "host", reason: "hostNetwork" },
  ];
  const desired = { enrolments: new Map([["u", WANTED]]), refused };
  deepStrictEqual(registryEntries(desired, "n1", new Set(), () => true, () => ACTIVE), [ENTRY, {
    uid: "v",
    namespace: "kube-system",
    name: "static",
    identity: "spiffe://td/ns/kube-system/sa/default",
    node: "n1",
    addresses: ["10.0.0.9"],
    ready: false,
  }]);
});

Deno.test("an address that may be anybody's is not named, whoever has given it to a pod", () => {
  const unnamed = ["192.0.2.1", "10.0.0.7"];
  const isOurs = (address: string) => address.startsWith("10.");
  deepStrictEqual(entries({ ...ACTIVE, unnamed }, WANTED, ["10.0.0.1"], isOurs), [
    ENTRY,
    { ...ENTRY, addresses: ["10.0.0.7"], ready: false },
  ]);
});

Deno.test("a pod that has ended has its address no more; another node's has none here", () => {
  const pod = (address: string, phase: string, nodeName = "n1") =>
    readPod({
      kind: "Pod",
      metadata: { name: "web", namespace: "shop", uid: address },
      spec: { nodeName },
      status: { phase, podIPs: [{ ip: address }] },
    });
  const pods = [
    pod("10.0.0.1", "Running"),
    pod("10.0.0.2", "Succeeded"),
    pod("10.0.0.3", "Failed"),
    pod("10.0.0.4", "Pending"),
    pod("10.0.0.5", "Running", "n2"),
  ];
  deepStrictEqual([...namedAddresses(pods, "n1")], ["10.0.0.1", "10.0.0.4"]);
});

Deno.test("a node speaks for its podCIDRs where these are in use, for what it has said before, and alone in a directory", () => {
  const facts = { name: "n1", zone: undefined, podCidrs: ["10.0.0.0/24"], addresses: [] };
  const nodes = new Map([["n1", facts]]);
  const said = [{ addresses: ["192.0.2.1"] }];
  const of = (isOurs: (address: string) => boolean) =>
    ["10.0.0.7", "10.0.1.7", "192.0.2.1"].filter(isOurs);
  deepStrictEqual(of(ownAddresses({ nodes }, "n1", true, said)), ["10.0.0.7", "192.0.2.1"]);
  deepStrictEqual(of(ownAddresses({ nodes }, "n1", false, said)), ["192.0.2.1"]);
  deepStrictEqual(of(ownAddresses({ nodes }, "n2", true, [])), []);
  strictEqual(of(ownAddresses({ nodes: new Map() }, "n1", false, [])).length, 3);
});
