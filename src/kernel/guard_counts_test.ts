/** The guard of a pod's cgroup, in the kernel (root): two namespaces, real connections. */
import assert from "node:assert/strict";
import { formatAddress, parseAddress } from "../addresses.ts";
import { cgroupId } from "../native/file_system.ts";
import { type GuardCount, OTHER_PODS } from "./guard_counts.ts";
import { encodePeer } from "./maps.ts";
import { withMaps } from "./maps_for_tests.ts";
import { TestProcess, withCgroup, withNamespaces } from "./places_for_tests.ts";
import type { Redirector } from "./redirector.ts";

const UID = "0c5f3b1e-6d5e-4c64-9d3a-222222222222";
const PORT = 9000;
const TUNNEL_PORT = 18443;

function makePeer({ peers }: Redirector, ...addresses: string[]): void {
  for (const address of addresses) {
    peers.set(
      new Uint8Array(parseAddress(address)),
      encodePeer({ identity: 1, generation: 1, ready: true }),
    );
  }
}

/** What a count says, but for what differs from run to run. */
function essence({ pod, peer, protocol, seen, payloadBytes, droppedPackets, first }: GuardCount) {
  const text = ({ address, port }: { address: Uint8Array; port: number }) =>
    `${formatAddress(address)} ${port}`;
  return {
    pod,
    peer: formatAddress(peer),
    protocol,
    seen,
    payloadBytes,
    droppedPackets,
    way: `${text(first.source)} > ${text(first.destination)}`,
  };
}

Deno.test("what a pod sends to a peer outside the tunnel is counted, and nothing else", () =>
  withMaps((redirector) =>
    withCgroup((cgroup) =>
      withNamespaces(async (one, other) => {
        const counts = redirector.guardCounts;
        const pod = cgroupId(cgroup);
        await using _server = await TestProcess.echo(other, undefined, [PORT, TUNNEL_PORT]);
        await using _self = await TestProcess.echo(one, cgroup, [PORT]);
        await using client = await TestProcess.client(one, cgroup);
        await using stranger = await TestProcess.client(one, undefined);
        await using visitor = await TestProcess.client(other, undefined);
        redirector.attach(UID, cgroup, false);

        const v4 = await client.connect("v4", other.ipv4, PORT);
        const v6 = await client.connect("v6", other.ipv6, PORT);
        await client.connect("tunnel", other.ipv4, TUNNEL_PORT);
        await client.connect("self", one.ipv4, PORT);
        await client.connect("self6", one.ipv6, PORT);
        await stranger.connect("v4", other.ipv4, PORT);
        const inbound = await visitor.connect("plain", one.ipv4, PORT);
        for (const name of ["v4", "v6", "tunnel", "self"]) {
          assert.equal(await client.talk(name, 1000), "echo");
        }
        assert.equal(await visitor.talk("plain", 10), "echo");
        assert.deepEqual(counts.all(), [], "there is no peer yet");

        const began = Date.now();
        makePeer(redirector, one.ipv4, one.ipv6);
        for (const name of ["v4", "tunnel", "self", "self6"]) await client.talk(name, 1000);
        assert.deepEqual(counts.all(), [], "to the pod itself");
        makePeer(redirector, other.ipv4, other.ipv6);
        for (const name of ["tunnel", "self"]) assert.equal(await client.talk(name, 1), "echo");
        assert.equal(await stranger.talk("v4", 1000), "echo");
        assert.deepEqual(counts.all(), [], "through the tunnel, or from another cgroup");

        assert.equal(await client.talk("v4", 100_000), "echo");
        assert.equal(await client.talk("v6", 1000), "echo");
        const usual = { pod, protocol: "tcp", seen: "cgroup", droppedPackets: 0 };
        const sorted = () => counts.all().map(essence).sort((a, b) => a.way < b.way ? -1 : 1);
        assert.deepEqual(sorted(), [
          {
            ...usual,
            peer: other.ipv4,
            payloadBytes: 100_000,
            way: `${one.ipv4} ${v4} > ${other.ipv4} ${PORT}`,
          },
          {
            ...usual,
            peer: other.ipv6,
            payloadBytes: 1000,
            way: `${one.ipv6} ${v6} > ${other.ipv6} ${PORT}`,
          },
        ]);
        for (const { packets, bytes, payloadBytes, first, lastMilliseconds } of counts.all()) {
          assert(
            packets > 0 && bytes >= payloadBytes + 40 * packets,
            `${packets} packets, ${bytes} bytes`,
          );
          for (const at of [first.atMilliseconds, lastMilliseconds]) {
            assert(at > began - 100 && at < Date.now() + 100, `${at - began} ms after it began`);
          }
        }

        counts.forget(1n);
        counts.forgetAllBut(new Set([pod]));
        assert.equal(counts.all().length, 2);
        counts.forgetAllBut(new Set([1n]));
        assert.deepEqual(counts.all(), []);
        assert.equal(await visitor.talk("plain", 10), "echo");
        assert.deepEqual(sorted(), [{
          ...usual,
          peer: other.ipv4,
          payloadBytes: 10,
          way: `${one.ipv4} ${PORT} > ${other.ipv4} ${inbound}`,
        }], "answers to a plain connection");

        counts.forget(pod);
        const udp = await client.connectUdp("udp", other.ipv4, PORT);
        assert.equal(await client.talk("udp", 700), "echo");
        assert.deepEqual(sorted(), [{
          ...usual,
          protocol: "udp",
          peer: other.ipv4,
          payloadBytes: 700,
          way: `${one.ipv4} ${udp} > ${other.ipv4} ${PORT}`,
        }]);
      })
    )
  ));

Deno.test("with strict egress what goes to a peer outside the tunnel is counted and dropped", () =>
  withMaps((redirector) =>
    withCgroup((cgroup) =>
      withNamespaces(async (one, other) => {
        await using _server = await TestProcess.echo(other, undefined, [PORT, TUNNEL_PORT]);
        await using client = await TestProcess.client(one, cgroup);
        redirector.attach(UID, cgroup, false);
        for (const [name, host] of [["v4", other.ipv4], ["v6", other.ipv6]] as const) {
          await client.connect(name, host, PORT);
          await client.connect(`${name}-tunnel`, host, TUNNEL_PORT);
          await client.connectUdp(`${name}-udp`, host, PORT);
        }
        makePeer(redirector, other.ipv4, other.ipv6);
        redirector.attach(UID, cgroup, true);
        for (const name of ["v4", "v6"]) {
          assert.equal(await client.talk(name, 100, 0.5), "TimeoutError");
          assert.equal(await client.talk(`${name}-tunnel`, 100), "echo");
          assert.equal(await client.talk(`${name}-udp`, 100), "echo", "nothing is promised of UDP");
        }
        const counts = redirector.guardCounts.all();
        const tcp = counts.filter(({ protocol }) => protocol === "tcp");
        assert.equal(counts.length, 4);
        assert.equal(tcp.every(({ packets, droppedPackets }) => packets === droppedPackets), true);
        redirector.attach(UID, cgroup, false);
        assert.equal(await client.talk("v4", 100), "echo", "it is let through again");
      })
    )
  ));

Deno.test("what finds no room in the map is counted all the same, as nobody's", () =>
  withMaps((redirector) =>
    withCgroup((cgroup) =>
      withNamespaces(async (one, other) => {
        const { map } = redirector.guardCounts;
        await using _server = await TestProcess.echo(other, undefined, [PORT]);
        await using client = await TestProcess.client(one, cgroup);
        redirector.attach(UID, cgroup, false);
        await client.connect("v4", other.ipv4, PORT);
        makePeer(redirector, other.ipv4);
        const key = new Uint8Array(map.keySize);
        assert.throws(() => {
          for (let number = 1;; number++) {
            new DataView(key.buffer).setUint32(8, number);
            map.add(key, new Uint8Array(map.valueSize));
          }
        }, /E2BIG/);
        await client.talk("v4", 1000);
        const [count, ...others] = redirector.guardCounts.all();
        assert.deepEqual(others, []);
        assert.deepEqual([count?.pod, count?.payloadBytes], [OTHER_PODS, 1000]);
      })
    )
  ));
