/**
 * The guard of a pod's devices, in the kernel (root): two namespaces, processes that are in no
 * pod's cgroup.
 */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { formatAddress, parseAddress } from "../addresses.ts";
import type { GuardedPod } from "./device_guard.ts";
import { encodeEgressRule, encodeNumber, encodePeer, encodeRange } from "./maps.ts";
import { OBJECT, withMaps } from "./maps_for_tests.ts";
import { run, type TestNamespace, TestProcess, withNamespaces } from "./places_for_tests.ts";
import { Redirector } from "./redirector.ts";
import { ROOT } from "../root_for_tests.ts";

const PORT = 9000;
const TUNNEL_PORT = 18443;
const PERMISSIVE = { egress: "permissive", inbound: "permissive" } as const;

function bytes(address: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(parseAddress(address));
}

function podIn(
  place: TestNamespace,
  settings: Pick<GuardedPod, "egress" | "inbound"> = PERMISSIVE,
  id = 4711n,
): GuardedPod {
  const addresses = [place.ipv4, place.ipv6].map(bytes);
  return { id, namespace: place.namespace, addresses, ...settings };
}

/** A test with two namespaces, each of them a peer's. */
function withPeers(
  use: (redirector: Redirector, one: TestNamespace, other: TestNamespace) => Promise<void>,
): Promise<void> {
  return withMaps((redirector) =>
    withNamespaces(async (one, other) => {
      for (const address of [one.ipv4, one.ipv6, other.ipv4, other.ipv6]) {
        redirector.peers.set(
          bytes(address),
          encodePeer({ identity: 1, generation: 1, ready: true, slice: 0 }),
        );
      }
      await use(redirector, one, other);
    })
  );
}

Deno.test(
  "what leaves a pod's device for a peer outside the tunnel is counted, and dropped where egress is strict",
  ROOT,
  () =>
    withPeers(async (redirector, one, other) => {
      const { deviceGuard, guardCounts } = redirector;
      await using _server = await TestProcess.echo(other, undefined, [PORT, TUNNEL_PORT]);
      await using _own = await TestProcess.echo(one, undefined, [PORT]);
      await using client = await TestProcess.client(one, undefined);
      const pod = podIn(one);
      deviceGuard.attach(pod);
      guardCounts.count(pod.id);
      await client.connect("tunnel", other.ipv4, TUNNEL_PORT);
      await client.connect("self", one.ipv4, PORT);
      for (const name of ["tunnel", "self"]) assert.equal(await client.talk(name, 9), "echo");
      assert.deepEqual(guardCounts.all(), []);

      for (const [name, host] of [["v4", other.ipv4], ["v6", other.ipv6]] as const) {
        await client.connect(name, host, PORT);
        assert.equal(await client.talk(name, 100_000), "echo");
        await client.connectUdp(`${name}-udp`, host, PORT);
        assert.equal(await client.talk(`${name}-udp`, 500), "echo");
      }
      const seen = () =>
        guardCounts.all().map(({ pod, peer, protocol, seen, payloadBytes, droppedPackets }) =>
          [
            ...[pod, peer === undefined ? "others" : formatAddress(peer), protocol],
            ...[seen, payloadBytes, droppedPackets],
          ].join(" ")
        ).sort();
      assert.deepEqual(seen(), [
        `4711 ${other.ipv4} tcp device 100000 0`,
        `4711 ${other.ipv6} tcp device 100000 0`,
        `4711 others udp device 1000 0`,
      ]);

      guardCounts.forget(pod.id);
      guardCounts.count(pod.id);
      deviceGuard.attach({ ...pod, egress: "strict" });
      for (const name of ["v4", "v6"]) {
        assert.equal(await client.talk(name, 10, 0.5), "TimeoutError");
        assert.equal(await client.talk(`${name}-udp`, 10), "echo", "nothing is promised of UDP");
      }
      assert.equal(await client.connect("new", other.ipv4, PORT, 0.5), "TimeoutError");
      assert.equal(await client.talk("tunnel", 10), "echo");
      const tcp = guardCounts.all().filter(({ protocol }) => protocol === "tcp");
      assert.equal(tcp.length, 2);
      assert(tcp.every(({ packets, droppedPackets }) => packets === droppedPackets));

      deviceGuard.detach(pod);
      guardCounts.forget(pod.id);
      guardCounts.count(pod.id);
      assert.equal(await client.talk("v6", 10), "echo");
      assert.deepEqual(guardCounts.all(), []);
    }),
);

Deno.test(
  "a dry run refuses nothing, and counts what strict would have refused",
  ROOT,
  () =>
    withPeers(async (redirector, one, other) => {
      const { deviceGuard, peers, egressRules, nodeAddresses, refusals, guardCounts } = redirector;
      await using _server = await TestProcess.echo(one, undefined, [PORT, TUNNEL_PORT]);
      await using _far = await TestProcess.echo(other, undefined, [PORT]);
      await using visitor = await TestProcess.client(other, undefined);
      await using client = await TestProcess.client(one, undefined);
      const pod = podIn(one);
      for (const address of [other.ipv4, other.ipv6]) peers.delete(bytes(address));
      const inside = encodeRange(bytes(other.ipv4), 128);
      egressRules.set(inside, encodeEgressRule([PORT + 1]));
      deviceGuard.attach({ ...pod, inbound: "dry-run", egress: "dry-run" });
      guardCounts.count(pod.id);
      assert.deepEqual(deviceGuard.inspect({ ...pod, inbound: "dry-run", egress: "dry-run" }), []);
      const counts = () =>
        Object.fromEntries(refusals.all().map(({ reason, count }) => [reason, count]));
      for (const host of [one.ipv4, one.ipv6]) {
        assert.match(await visitor.connect(`in-${host}`, host, PORT), /^\d+$/);
        assert.equal(await visitor.talk(`in-${host}`, 10), "echo");
      }
      assert.match(await visitor.connect("tunnel", one.ipv4, TUNNEL_PORT), /^\d+$/);
      assert.deepEqual(counts(), { inbound_dry_run: 2 });
      for (const host of [other.ipv4, other.ipv6]) {
        assert.match(await client.connect(`out-${host}`, host, PORT), /^\d+$/);
      }
      assert.deepEqual(counts(), { inbound_dry_run: 2, egress_dry_run: 1 }, "IPv6 is outside");
      egressRules.set(inside, encodeEgressRule([PORT]));
      nodeAddresses.set(bytes(other.ipv4), encodeNumber(1));
      assert.match(await client.connect("allowed", other.ipv4, PORT), /^\d+$/);
      assert.match(await visitor.connect("node", one.ipv4, PORT), /^\d+$/);
      assert.deepEqual(counts(), { inbound_dry_run: 2, egress_dry_run: 1 });
      peers.set(bytes(other.ipv4), new Uint8Array(peers.valueSize));
      egressRules.set(inside, encodeEgressRule([]));
      assert.match(await client.connect("peer", other.ipv4, PORT), /^\d+$/);
      assert.equal(counts().egress_dry_run, 1, "what goes to a peer is counted as such");
      assert(guardCounts.all().some(({ droppedPackets }) => droppedPackets === 0));
    }),
);

Deno.test(
  "where inbound is strict, a connection that has met no tunnel is not answered, but for the node's",
  ROOT,
  () =>
    withPeers(async (redirector, one, other) => {
      const { deviceGuard, nodeAddresses, refusals } = redirector;
      await using _server = await TestProcess.echo(one, undefined, [PORT, TUNNEL_PORT]);
      await using _far = await TestProcess.echo(other, undefined, [PORT]);
      await using visitor = await TestProcess.client(other, undefined);
      await using client = await TestProcess.client(one, undefined);
      const pod = podIn(one);
      await visitor.connect("earlier", one.ipv4, PORT);
      deviceGuard.attach({ ...pod, inbound: "strict" });
      assert.equal(await visitor.connect("v4", one.ipv4, PORT, 0.5), "TimeoutError");
      assert.equal(await visitor.connect("v6", one.ipv6, PORT, 0.5), "TimeoutError");
      assert.match(await visitor.connect("tunnel", one.ipv4, TUNNEL_PORT), /^\d+$/);
      assert.match(await client.connect("out", other.ipv4, PORT), /^\d+$/);
      assert.equal(await visitor.talk("earlier", 1), "echo");
      const [refusal, ...others] = refusals.all();
      assert.deepEqual(others, []);
      assert.equal(refusal?.cgroup, pod.id);
      assert.equal(refusal?.reason, "inbound");
      assert.equal((refusal?.count ?? 0) >= 2, true);
      // The last may be one of IPv4's that was sent again.
      const to = formatAddress(refusal?.last.destination.address ?? bytes("::"));
      assert([other.ipv4, other.ipv6].includes(to), to);

      nodeAddresses.set(bytes(other.ipv4), encodeNumber(1));
      assert.match(await visitor.connect("node", one.ipv4, PORT), /^\d+$/);
      assert.equal(await visitor.connect("v6", one.ipv6, PORT, 0.5), "TimeoutError");
      deviceGuard.attach(pod);
      assert.match(await visitor.connect("v6", one.ipv6, PORT), /^\d+$/);
    }),
);

Deno.test(
  "a guard that is gone from a device is noticed and is put back",
  ROOT,
  () =>
    withPeers(async (redirector, one, other) => {
      const { deviceGuard } = redirector;
      const pod = podIn(one);
      const tc = (...args: string[]) => run("ip", "netns", "exec", one.name, "tc", ...args);
      const what = () => deviceGuard.inspect(pod).map(({ kind, what }) => `${kind}: ${what}`);
      assert.equal(what().length, 1);
      deviceGuard.attach(pod);
      assert.deepEqual(what(), []);
      deviceGuard.attach(pod);
      const filters = await tc("filter", "show", "dev", "eth0", "egress");
      assert.equal(filters.split("handle 0x6b67").length - 1, 1, filters);

      for (
        const breaking of [
          ["qdisc", "delete", "dev", "eth0", "clsact"],
          ["filter", "delete", "dev", "eth0", "egress"],
        ]
      ) {
        await tc(...breaking);
        assert.match(
          what().join(),
          /^guard: guard_device is not attached to the pod's device \d+$/,
        );
        deviceGuard.attach(pod);
        assert.deepEqual(what(), []);
      }

      assert.match(deviceGuard.inspect({ ...pod, egress: "strict" })[0]?.what ?? "", /settings/);
      assert.match(deviceGuard.inspect({ ...pod, id: 1n })[0]?.what ?? "", /settings/);
      // Another pod's number on this one's device.
      deviceGuard.attach(podIn(other, PERMISSIVE, 1n));
      deviceGuard.attach({ ...pod, id: 1n });
      assert.equal(what().length, 1);
      deviceGuard.attach(pod);
      assert.deepEqual(what(), []);

      // A version whose program is another one.
      using next = new Redirector(OBJECT, redirector.stateDirectory);
      assert.match(next.deviceGuard.inspect(pod)[0]?.what ?? "", /is not attached/);
      next.deviceGuard.attach(pod);
      assert.deepEqual(next.deviceGuard.inspect(pod), []);

      await run("ip", "-netns", one.name, "address", "flush", "dev", "eth0");
      assert.match(what().join(), /no device of the pod's holds one of its addresses/);
      assert.throws(() => deviceGuard.attach(pod), /no device of the pod's/);
    }),
);

Deno.test(
  "what is guarded no more leaves nothing, and numbers are given again",
  ROOT,
  () =>
    withPeers(async ({ deviceGuard, stateDirectory }, one, other) => {
      const pods = [podIn(one, PERMISSIVE, 1n), podIn(other, PERMISSIVE, 2n)];
      const known = async () =>
        (JSON.parse(
          await run(
            "bpftool",
            "-j",
            "map",
            "dump",
            "pinned",
            `${stateDirectory}/maps/guarded_devices`,
          ),
        ) as unknown[]).length;
      const open = () => readdirSync("/proc/self/fd").length;
      const before = open();
      for (let round = 0; round < 10; round++) {
        for (const pod of pods) deviceGuard.attach(pod);
        for (const pod of pods) assert.deepEqual(deviceGuard.inspect(pod), []);
        assert.equal(await known(), 2);
        for (const pod of pods) deviceGuard.detach(pod);
        assert.equal(await known(), 0);
      }
      assert.equal(open(), before);
      const tc = (name: string, ...args: string[]) =>
        run("ip", "netns", "exec", name, "tc", ...args);
      for (const { name } of [one, other]) {
        assert.doesNotMatch(await tc(name, "qdisc", "show", "dev", "eth0"), /clsact/);
      }
      for (const pod of pods) deviceGuard.attach(pod);
      // Somebody else's, on the other way.
      await tc(
        one.name,
        ...["filter", "add", "dev", "eth0", "ingress", "bpf", "bytecode", "1,6 0 0 0"],
        ...["flowid", "1:1"],
      );
      await tc(other.name, "qdisc", "delete", "dev", "eth0", "clsact");
      for (const pod of pods) deviceGuard.detach(pod);
      assert.match(await tc(one.name, "filter", "show", "dev", "eth0", "ingress"), /bytecode/);
      assert.equal((await tc(one.name, "filter", "show", "dev", "eth0", "egress")).trim(), "");
      for (const pod of pods) deviceGuard.attach(pod);
      deviceGuard.forgetAllBut(new Set([2n]));
      assert.equal(await known(), 1);
      deviceGuard.detach(pods[0] ?? podIn(one)); // once more is no error
    }),
);
