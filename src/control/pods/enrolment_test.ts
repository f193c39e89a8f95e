import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { until } from "../../../tests/lab/delay.ts";
import { IssuingError } from "../../identity/issuer.ts";
import type { GuardCount } from "../../kernel/guard_counts.ts";
import type { ProofResult } from "../../relay/messages.ts";
import { settingsOf } from "../rules/settings.ts";
import { CGROUP, Node, WANTED } from "./node_for_tests.ts";
import { NotThereYet } from "./pod_kernel.ts";

const EGRESS_STRICT = settingsOf({ "kube-gateway.io/egress": "strict" });
const INBOUND_STRICT = settingsOf({ "kube-gateway.io/inbound": "strict" });

async function enrolled(wanted = WANTED): Promise<Node> {
  const node = new Node(wanted);
  await node.step();
  strictEqual(node.state, "active");
  return node;
}

async function leaving(): Promise<Node> {
  const node = await enrolled();
  node.registered = WANTED.addresses.slice();
  node.enrolment.want(undefined);
  deepStrictEqual(await node.step(), ["release"]);
  strictEqual(node.state, "leaving");
  return node;
}

Deno.test("a running pod's listeners are open before its programs send connections there", async () => {
  const node = new Node();
  deepStrictEqual(await node.step(), ["open", "attach", "certificate", "serve"]);
  strictEqual(node.state, "active");
  strictEqual(node.enrolment.isSettled, true);
});

Deno.test("what is missing yet is the reason, and is tried again", async () => {
  const node = new Node();
  node.cgroup = undefined;
  deepStrictEqual(await node.step(), []);
  match(node.enrolment.reason ?? "", /cgroup/);
  node.cgroup = CGROUP;
  node.failing.set("open", new NotThereYet("no process yet"));
  deepStrictEqual(
    await node.step(),
    ["open", "attach"],
    "it is held while its namespace is awaited",
  );
  strictEqual(node.enrolment.reason, "no process yet");
  strictEqual(node.enrolment.isPresent, false);
  node.failing.clear();
  deepStrictEqual(await node.step(), ["open", "certificate", "serve"]);
  strictEqual(node.state, "active");
});

Deno.test("a pod whose port is taken is held, and waits", async () => {
  const node = new Node();
  node.failing.set("open", new Error("bind: EADDRINUSE"));
  deepStrictEqual(await node.step(), ["open", "attach"]);
  strictEqual(node.state, "waiting");
  strictEqual(node.enrolment.isPresent, true);
  match(node.enrolment.reason ?? "", /EADDRINUSE/);
});

Deno.test("whatever fails on the way in is undone but for the programs", async () => {
  for (const what of ["attach", "strict inbound", "certificate", "serve"]) {
    const node = new Node({ ...WANTED, settings: INBOUND_STRICT });
    node.failing.set(what, new IssuingError("unavailable", `${what} failed`));
    const done = await node.step();
    strictEqual(done.at(-1), "close", what);
    strictEqual(done.includes("detach"), false, what);
    strictEqual(node.state, "waiting");
    match(node.enrolment.reason ?? "", new RegExp(`${what} failed`));
    node.failing.clear();
    for (let i = 0; i < 100 && !node.enrolment.isSettled; i++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      await node.step();
    }
    strictEqual(node.state, "active", what);
  }
});

Deno.test("what was open for an entry that has failed is closed before the next one begins", async () => {
  const node = new Node();
  node.failing.set("serve", new Error("no worker"));
  const { promise, resolve } = Promise.withResolvers<void>();
  node.closing = promise;
  const first = node.step();
  await until(() => node.done.includes("close"), 5_000, () => node.done.join());
  node.failing.clear();
  deepStrictEqual([await node.step(), node.state], [[], "enrolling"]);
  resolve();
  await first;
  strictEqual(node.state, "waiting");
  await node.step();
  strictEqual(node.state, "active");
});

Deno.test("a static pod's cgroup gets the programs only when its namespace has proved it", async () => {
  const node = new Node();
  node.cgroup = "/kubepods/pod0123456789abcdef";
  node.failing.set("open", new NotThereYet("no namespace of the pod holds 10.0.0.1 yet"));
  deepStrictEqual(await node.step(), ["open"]);
  node.failing.clear();
  deepStrictEqual(await node.step(), ["open", "attach", "certificate", "serve"]);
});

Deno.test("a pod that is born is held at once, if the cgroup is named by it", () => {
  const node = new Node();
  node.enrolment.born("/kubepods/pod0123456789abcdef");
  deepStrictEqual(node.take(), []);
  node.failing.set("attach", new Error("gone"));
  node.enrolment.born(CGROUP);
  node.failing.clear();
  node.enrolment.born(CGROUP);
  deepStrictEqual(node.take(), ["attach", "attach"]);
});

Deno.test("another sandbox, address or account sends it back to waiting, with its programs", async () => {
  const moved = { ...WANTED, addresses: ["10.0.0.2"] };
  for (
    const change of [
      (node: Node) => void (node.inUse = false),
      (node: Node) => node.enrolment.want(moved),
      (node: Node) => node.enrolment.want({ ...WANTED, identity: "spiffe://td/ns/shop/sa/db" }),
    ]
  ) {
    const node = await enrolled();
    change(node);
    deepStrictEqual(await node.step(), ["close"]);
    strictEqual(node.state, "waiting");
    node.inUse = true;
    strictEqual((await node.step()).includes("open"), true);
    strictEqual(node.state, "active");
  }
});

Deno.test("an address that its object loses is refused as long as its namespace holds it", async () => {
  const both = { ...WANTED, addresses: ["10.0.0.1", "fd00::1"] };
  const node = new Node(both);
  node.held = [...both.addresses];
  await node.step();
  node.registered = [...both.addresses];
  await node.enrolment.inspect([], true);
  deepStrictEqual([node.enrolment.unnamed, node.enrolment.flaws], [[], []]);

  node.done.length = 0;
  node.enrolment.want(WANTED);
  strictEqual(node.done.includes("changed"), true, "the registry is told");
  deepStrictEqual(node.enrolment.unnamed, ["fd00::1"], "before it is served anew");
  await node.step();
  strictEqual(node.state, "waiting");
  deepStrictEqual(node.enrolment.unnamed, ["fd00::1"], "while it is not served");
  await node.step();
  strictEqual(node.state, "active");
  match(node.enrolment.reason ?? "", /it has fd00::1/);

  node.held = ["10.0.0.1"];
  await node.enrolment.inspect([], true);
  deepStrictEqual([node.enrolment.unnamed, node.enrolment.flaws], [[], []]);
  node.held = [...both.addresses];
  await node.enrolment.inspect([], true);
  deepStrictEqual(node.enrolment.unnamed, ["fd00::1"], "the registry names it still");
  node.enrolment.want(both);
  deepStrictEqual(node.enrolment.unnamed, [], "it is named again");
});

Deno.test("a second address, which nobody has named, is found with the next thorough look", async () => {
  const node = await enrolled();
  node.held = ["10.0.0.1", "10.0.0.7"];
  node.done.length = 0;
  await node.enrolment.inspect([], true);
  deepStrictEqual([node.enrolment.unnamed, node.done.includes("changed")], [["10.0.0.7"], true]);
  match(node.enrolment.reason ?? "", /it has 10\.0\.0\.7, which its object does not name/);
  node.held = ["10.0.0.1"];
  await node.enrolment.inspect([], true);
  deepStrictEqual([node.enrolment.unnamed, node.enrolment.flaws], [[], []]);
});

Deno.test("the address of a sandbox that has gone is another pod's", async () => {
  const node = await enrolled();
  node.registered = [...WANTED.addresses];
  node.inUse = false;
  node.enrolment.want({ ...WANTED, addresses: ["10.0.0.2"] });
  deepStrictEqual(node.enrolment.unnamed, []);
  await node.step();
  node.inUse = true;
  node.held = ["10.0.0.2"];
  await node.step();
  deepStrictEqual([node.state, node.enrolment.unnamed], ["active", []]);
});

Deno.test("whether an address is still held is not known: it is refused", async () => {
  const node = await enrolled();
  node.registered = ["10.0.0.1", "fd00::1"];
  node.inUse = new Error("EMFILE");
  node.enrolment.want(WANTED);
  deepStrictEqual(node.enrolment.unnamed, ["fd00::1"]);
});

Deno.test("an object that names no address, and a node that cannot tell, say nothing against it", async () => {
  const node = await enrolled();
  node.enrolment.want({ ...WANTED, addresses: [] });
  node.inUse = new Error("EMFILE");
  deepStrictEqual(await node.step(), []);
  strictEqual(node.state, "active");
});

Deno.test("a cgroup that was made anew under its name gets the programs", async () => {
  const node = await enrolled();
  node.inUse = false;
  node.cgroupId = 2n;
  await node.step();
  node.inUse = true;
  deepStrictEqual(await node.step(), ["open", "attach", "serve"]);
});

Deno.test("the settings are in force at once; those that fail stay as they were", async () => {
  const node = await enrolled();
  node.enrolment.want({ ...WANTED, settings: EGRESS_STRICT });
  deepStrictEqual(node.take(), ["attach strict", "adjust"]);
  node.enrolment.want({ ...WANTED, settings: EGRESS_STRICT });
  deepStrictEqual(node.take(), [], "nothing has changed");
  node.failing.set("attach", new Error("ENOMEM"));
  node.enrolment.want(WANTED);
  strictEqual(node.enrolment.settings.egress, "strict");
  node.failing.clear();
  node.enrolment.want(WANTED);
  strictEqual(node.enrolment.settings.egress, "permissive");
});

Deno.test("it leaves when users can read it, or after 3 s, and its listeners when peers can", async () => {
  const node = await enrolled();
  node.registered = WANTED.addresses.slice();
  node.secured = true;
  node.enrolment.want(undefined);
  deepStrictEqual(await node.step(), [], "its status still says that it is secured");
  node.time += 2_999;
  deepStrictEqual(await node.step(), []);
  node.secured = false;
  deepStrictEqual(await node.step(), ["release"]);
  node.time += 10_000;
  deepStrictEqual(await node.step(), [], "the registry still names it");
  node.registered = [];
  node.time += 5_999;
  deepStrictEqual(await node.step(), []);
  node.time += 1;
  deepStrictEqual(await node.step(), ["detach", "drain"]);
  strictEqual(node.state, "gone");

  const unheard = await enrolled();
  unheard.registered = WANTED.addresses.slice();
  unheard.secured = true;
  unheard.enrolment.want(undefined);
  await unheard.step();
  unheard.time += 3_000;
  deepStrictEqual(await unheard.step(), ["release"], "users cannot be told");
  unheard.time += 57_000;
  deepStrictEqual(await unheard.step(), ["detach", "drain"], "the registry cannot be written");
});

Deno.test("peers may not have heard yet that the registry has lost it: it is served for 6 s from then on", async () => {
  const node = await enrolled();
  node.time = 100_000;
  node.enrolment.want(undefined);
  deepStrictEqual(await node.step(), ["release"]);
  node.time += 5_999;
  deepStrictEqual(await node.step(), []);
  node.time += 1;
  deepStrictEqual(await node.step(), ["detach", "drain"]);
});

Deno.test("a pod that has gone leaves at once", async () => {
  const node = await enrolled();
  node.registered = WANTED.addresses.slice();
  node.secured = true;
  node.inUse = false;
  node.enrolment.want(undefined);
  deepStrictEqual(await node.step(), ["release", "detach", "close"]);
  strictEqual(node.state, "gone");
});

Deno.test("a pod that was never enrolled leaves when its status does not say that it is secured", async () => {
  const node = new Node();
  node.failing.set("open", new NotThereYet("no process yet"));
  await node.step();
  node.secured = true;
  node.enrolment.want(undefined);
  deepStrictEqual(await node.step(), []);
  node.secured = false;
  deepStrictEqual(await node.step(), ["release", "detach"]);
  strictEqual(node.state, "gone");
});

Deno.test("a detaching that fails is tried again", async () => {
  const node = await enrolled();
  node.failing.set("release", new Error("EBUSY"));
  node.enrolment.want(undefined);
  for (let i = 0; i < 2; i++) {
    await node.step().then(
      () => Promise.reject(new Error("no error")),
      ({ message }) => strictEqual(message, "EBUSY"),
    );
    strictEqual(node.state, "leaving");
  }
  node.failing.clear();
  node.registered = WANTED.addresses.slice();
  deepStrictEqual(await node.step(), ["release"]);
});

Deno.test("wanted again while it leaves, it is active again; an attaching that fails is tried again", async () => {
  const node = await leaving();
  node.enrolment.want(WANTED);
  node.failing.set("attach", new Error("ENOMEM"));
  await node.step().catch(() => {});
  strictEqual(node.state, "leaving");
  node.failing.clear();
  deepStrictEqual(await node.step(), ["attach"]);
  strictEqual(node.state, "active");
});

Deno.test("wanted again when nothing of it is open, it waits", async () => {
  const node = new Node();
  node.cgroup = undefined;
  await node.step();
  node.enrolment.want(undefined);
  node.secured = true;
  node.enrolment.want(WANTED);
  await node.step();
  strictEqual(node.state, "waiting");
});

Deno.test("what an inspection finds is mended, and is a flaw until the next one finds nothing", async () => {
  const node = await enrolled();
  deepStrictEqual(await node.enrolment.inspect(), []);
  node.letThrough = false;
  deepStrictEqual((await node.enrolment.inspect()).map(({ kind }) => kind), ["pods_entry"]);
  strictEqual(node.enrolment.flaws.length, 1);
  strictEqual(node.enrolment.isSettled, false);
  deepStrictEqual(await node.enrolment.inspect(), []);
  strictEqual(node.enrolment.flaws.length, 0);

  node.take();
  node.faults = [{ kind: "link", what: "connect4 was detached" }];
  deepStrictEqual(await node.enrolment.inspect(), [{
    kind: "link",
    what: "connect4 was detached",
  }]);
  deepStrictEqual(node.take(), ["attach"]);
  match(node.enrolment.reason ?? "", /connect4/);
  node.inboundFaults = [{ kind: "strict_inbound", what: "detached" }];
  strictEqual((await node.enrolment.inspect()).length, 1);
  strictEqual((await node.enrolment.inspect()).length, 0);
  node.inUse = false;
  node.letThrough = false;
  deepStrictEqual(
    await node.enrolment.inspect(),
    [],
    "a pod that is going has nothing to be mended",
  );
  node.inUse = true;

  node.failing.set("let through", new Error("ENOMEM"));
  node.letThrough = false;
  deepStrictEqual((await node.enrolment.inspect()).map(({ kind }) => kind), [
    "pods_entry",
    "unknown",
  ]);
  match(node.enrolment.flaws.join(), /ENOMEM/);
});

Deno.test("listeners that are not as they should be are opened anew, once the earlier ones are closed", async () => {
  const node = await enrolled();
  node.listenerFaults = ["nobody listens on fd00::1"];
  deepStrictEqual(await node.enrolment.inspect(), [], "others may still be closing");
  node.time += 6_000;
  deepStrictEqual((await node.enrolment.inspect()).map(({ kind }) => kind), ["listener"]);
  strictEqual(node.state, "waiting");
  strictEqual(node.enrolment.reason, "nobody listens on fd00::1");
});

Deno.test("listeners are compared with the node's sockets when a handshake is due, when something is wrong, or on request", async () => {
  const node = await enrolled();
  node.time += 6_000;
  await node.enrolment.inspect();
  await node.enrolment.inspect([], true);
  node.time += 24_000;
  await node.enrolment.inspect();
  node.faults = [{ kind: "link", what: "connect4 is not attached" }];
  await node.enrolment.inspect();
  await node.enrolment.inspect();
  deepStrictEqual(node.thoroughLooks, [false, true, true, false, true]);
});

Deno.test("a handshake proves it every 30 s; one that fails is a flaw, and at last it is served anew", async () => {
  const node = new Node();
  node.proof = { ok: false, reason: "no handshake within 5 s" };
  await node.step();
  await node.enrolment.inspect();
  strictEqual(node.enrolment.proved, undefined);
  match(node.enrolment.flaws.join(), /handshake with its own port failed: no handshake/);
  node.proof = { ok: true, notAfter: 0, milliseconds: 1 };
  deepStrictEqual(await node.enrolment.inspect(), []);
  strictEqual(typeof node.enrolment.proved, "number");

  node.proof = { ok: false, reason: "its certificate has expired" };
  node.time += 29_999;
  deepStrictEqual(await node.enrolment.inspect(), [], "it is not due");
  node.time += 1;
  deepStrictEqual((await node.enrolment.inspect()).map(({ kind }) => kind), ["handshake"]);
  strictEqual(node.enrolment.proved, undefined);
  strictEqual(node.state, "active");
  await node.enrolment.inspect();
  strictEqual(node.state, "waiting");
  await node.step();
  await node.enrolment.inspect();
  await node.enrolment.inspect();
  strictEqual(node.state, "active", "not again at once");
});

Deno.test("connections that are older than the enrolment are counted, and end when they must", async () => {
  const older = (isInbound: boolean) => ({
    isInbound,
    port: 80,
    peerIdentity: "spiffe://td/ns/shop/sa/db",
    name: "a - b",
  });
  const node = new Node({ ...WANTED, settings: settingsOf({ "kube-gateway.io/grace": "30s" }) });
  node.older = [older(true), older(false)];
  await node.step();
  await node.enrolment.inspect();
  strictEqual(node.enrolment.older.count, 2);
  node.time += 30_000;
  await node.enrolment.inspect();
  deepStrictEqual(node.take(), ["end 0,1"]);
  node.older = [];
  await node.enrolment.inspect();

  const strict = new Node({ ...WANTED, settings: EGRESS_STRICT });
  strict.older = [older(true), older(false)];
  await strict.step();
  await strict.enrolment.inspect();
  deepStrictEqual(strict.take(), ["end 1"]);
  strictEqual(strict.enrolment.older.count, 1);
});

Deno.test("what a pod of an unknown kernel sends past its programs shows that it is not secured", async () => {
  const end = { address: new Uint8Array(16), port: 1 };
  const escaped: GuardCount = {
    pod: 1n,
    peer: new Uint8Array(16),
    protocol: "tcp",
    seen: "device",
    packets: 3,
    bytes: 200,
    payloadBytes: 42,
    droppedPackets: 0,
    first: { source: end, destination: end, atMilliseconds: 0 },
    lastMilliseconds: 0,
  };
  for (
    const [isGuarded, change, kinds] of [
      [true, {}, ["escaped"]],
      [false, {}, []],
      [true, { payloadBytes: 0 }, []],
      [true, { seen: "cgroup" }, []],
      [true, { protocol: "udp" }, []],
    ] as const
  ) {
    const node = await enrolled({ ...WANTED, isGuarded });
    const counts = [{ ...escaped, ...change }];
    deepStrictEqual((await node.enrolment.inspect(counts)).map(({ kind }) => kind), kinds);
    strictEqual(node.enrolment.plaintext.length, 1);
  }
});

Deno.test("a pod that could not be counted is not served; one that is counted no more is not secured", async () => {
  const node = new Node();
  node.failing.set("count", new Error("map guard_counts: E2BIG"));
  await node.step();
  deepStrictEqual([node.state, node.isCounted], ["waiting", false]);
  match(node.enrolment.reason ?? "", /E2BIG/);
  node.failing.clear();
  await node.step();
  deepStrictEqual([node.state, node.isCounted], ["active", true]);

  node.isCounted = false;
  deepStrictEqual((await node.enrolment.inspect()).map(({ kind }) => kind), ["guard_entry"]);
  match(node.enrolment.flaws.join(), /was not counted/);
  deepStrictEqual([node.isCounted, node.counted], [true, 1], "what was counted stays");
  deepStrictEqual(await node.enrolment.inspect(), []);
  deepStrictEqual(node.enrolment.flaws, []);
});

Deno.test("the agent's end takes everything away at once", async () => {
  const node = await enrolled();
  await node.enrolment.leaveNow();
  deepStrictEqual(node.take(), ["detach", "close"]);
  strictEqual(node.state, "gone");
  deepStrictEqual(node.ends.map(({ aborted }) => aborted), [true], "no certificate is on its way");
});

Deno.test("wanted again while it leaves, it is restricted as before, and what was plain meanwhile is older", async () => {
  const settings = { ...INBOUND_STRICT, graceSeconds: 30 };
  const node = await enrolled({ ...WANTED, settings });
  strictEqual(node.restrictions?.inbound, "strict");
  await node.enrolment.inspect();
  node.registered = WANTED.addresses.slice();
  node.enrolment.want(undefined);
  deepStrictEqual(await node.step(), ["release"]);
  strictEqual(node.restrictions?.inbound, "permissive", "plain clients are let in again");
  node.time = 25_000;
  node.older = [{ isInbound: false, port: 80, peerIdentity: undefined, name: "a - b" }];
  node.enrolment.want({ ...WANTED, settings });
  deepStrictEqual(await node.step(), ["attach", "strict inbound"]);
  strictEqual(node.restrictions?.inbound, "strict");
  strictEqual(node.counted, 2, "what it has sent meanwhile has not escaped");
  node.time = 54_999;
  await node.enrolment.inspect();
  deepStrictEqual(node.take(), [], "30 s from when it was active again");
  strictEqual(node.enrolment.older.count, 1, "it is looked for, although there was none before");
  node.time = 55_000;
  await node.enrolment.inspect();
  deepStrictEqual(node.take(), ["end 0"]);
});

Deno.test("another sandbox gives older connections no more time, and counts nothing anew", async () => {
  const node = new Node({ ...WANTED, settings: { ...WANTED.settings, graceSeconds: 30 } });
  node.time = 1;
  await node.step();
  node.time = 20_000;
  node.inUse = false;
  await node.step();
  node.inUse = true;
  await node.step();
  strictEqual(node.state, "active");
  node.older = [{ isInbound: false, port: 80, peerIdentity: undefined, name: "a - b" }];
  node.time = 30_001;
  node.take();
  await node.enrolment.inspect();
  deepStrictEqual(node.take(), ["end 0"]);
  deepStrictEqual([node.counted, node.isCounted], [1, true]);
});

Deno.test("when its annotations change, older connections are judged anew at once", async () => {
  const node = await enrolled();
  await node.enrolment.inspect();
  node.older = [{ isInbound: true, port: 80, peerIdentity: undefined, name: "a - b" }];
  node.enrolment.want({ ...WANTED, settings: INBOUND_STRICT });
  node.take();
  await node.enrolment.inspect();
  deepStrictEqual(node.take(), ["end 0"]);
});

Deno.test("a policy is in force although the programs cannot be made strict", async () => {
  const node = await enrolled();
  node.failing.set("attach strict", new Error("ENOMEM"));
  const annotations = { "kube-gateway.io/egress": "strict", "kube-gateway.io/allow": "shop/db" };
  node.enrolment.want({ ...WANTED, settings: settingsOf(annotations) });
  deepStrictEqual(node.take(), ["attach strict", "adjust"]);
  const { egress, policy } = node.enrolment.settings;
  deepStrictEqual([egress, policy !== undefined], ["permissive", true]);
});

Deno.test("a signer that has refused is not asked again at every step", async () => {
  const node = new Node();
  node.failing.set("certificate", new IssuingError("denied", "not this pod"));
  strictEqual((await node.step()).includes("certificate"), true);
  deepStrictEqual(await node.step(), []);
  strictEqual(node.enrolment.reason, "not this pod");
});

Deno.test("a certificate that is not to be used any more is given up, also while it is on its way", async () => {
  const node = await enrolled();
  const ended = () => node.ends.map(({ aborted }) => aborted);
  node.enrolment.want({ ...WANTED, addresses: ["10.0.0.2"] });
  await node.step();
  await node.step();
  deepStrictEqual([node.state, ended()], ["active", [true, false]]);
  node.enrolment.want(undefined);
  await node.step();
  node.time += 6_000;
  await node.step();
  deepStrictEqual([node.state, ended()], ["gone", [true, true]]);
});

Deno.test("the workers are shown other roots while it is served, and not after that", async () => {
  const node = await enrolled();
  node.enrolment.trust([new Uint8Array(1)]);
  deepStrictEqual(node.shown, [1]);
  node.inUse = false;
  await node.step();
  node.enrolment.trust([new Uint8Array(1), new Uint8Array(2)]);
  deepStrictEqual(node.shown, [1]);
});

Deno.test("users are told when the first handshake has succeeded", async () => {
  const node = new Node();
  const { promise, resolve } = Promise.withResolvers<ProofResult>();
  node.proof = promise;
  await node.step();
  strictEqual(node.enrolment.proved, undefined);
  const told = () => node.done.filter((each) => each === "changed").length;
  strictEqual(told(), 0);
  resolve({ ok: true, notAfter: 0, milliseconds: 1 });
  await node.enrolment.inspect();
  strictEqual(typeof node.enrolment.proved, "number");
  strictEqual(told() > 0, true);
});

Deno.test("what a handshake says of listeners that are closed by now says nothing of the new ones", async () => {
  const node = await enrolled();
  await node.enrolment.inspect();
  node.time += 30_000;
  const { promise, resolve } = Promise.withResolvers<ProofResult>();
  const fine = node.proof;
  node.proof = promise;
  const inspecting = node.enrolment.inspect();
  node.inUse = false;
  await node.step();
  strictEqual(node.enrolment.proved, undefined, "nothing is served");
  [node.inUse, node.proof] = [true, fine];
  await node.step();
  await node.enrolment.inspect();
  resolve({ ok: false, reason: "no handshake within 5 s" });
  await inspecting;
  deepStrictEqual([node.state, node.enrolment.flaws], ["active", []]);
  strictEqual(typeof node.enrolment.proved, "number");
});

Deno.test("nor does the first handshake, which users wait for", async () => {
  const node = new Node();
  const fine = node.proof;
  const { promise, resolve } = Promise.withResolvers<ProofResult>();
  node.proof = promise;
  await node.step();
  node.inUse = false;
  await node.step();
  [node.inUse, node.proof] = [true, fine];
  await node.step();
  resolve({ ok: false, reason: "no handshake within 5 s" });
  await new Promise((resolve) => setTimeout(resolve, 0));
  deepStrictEqual([node.state, node.enrolment.flaws], ["active", []]);
});
