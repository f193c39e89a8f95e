/** The guard of a pod's cgroup, in the kernel (root): two namespaces, real connections. */
import assert from "node:assert/strict";
import { formatAddress, parseAddress } from "../addresses.ts";
import { cgroupId } from "../native/file_system.ts";
import type { GuardCount } from "./guard_counts.ts";
import { encodePeer } from "./maps.ts";
import { fill, withMaps } from "./maps_for_tests.ts";
import {
  run,
  type TestNamespace,
  TestProcess,
  withCgroup,
  withNamespaces,
} from "./places_for_tests.ts";
import type { Redirector } from "./redirector.ts";
import { ROOT } from "../root_for_tests.ts";

const UID = "0c5f3b1e-6d5e-4c64-9d3a-222222222222";
const PORT = 9000;
const TUNNEL_PORT = 18443;
const PERMISSIVE = { egress: "permissive", inbound: "permissive" } as const;

/** Of a pod (bpf/maps.h), and some more. */
const MAX_COUNTED_PEERS = 13;
const MANY = 20;

function makePeer({ peers }: Redirector, ...addresses: string[]): void {
  for (const address of addresses) {
    peers.set(
      new Uint8Array(parseAddress(address)),
      encodePeer({ identity: 1, generation: 1, ready: true, slice: 0 }),
    );
  }
}

/** What a count says, but for what differs from run to run. */
function essence({ pod, peer, protocol, seen, payloadBytes, droppedPackets, first }: GuardCount) {
  const text = ({ address, port }: { address: Uint8Array; port: number }) =>
    `${formatAddress(address)} ${port}`;
  return {
    pod,
    peer: peer === undefined ? "others" : formatAddress(peer),
    protocol,
    seen,
    payloadBytes,
    droppedPackets,
    way: `${text(first.source)} > ${text(first.destination)}`,
  };
}

/** The counts of what applications have said. An acknowledgement may come later. */
function said(counts: readonly GuardCount[]) {
  return counts.map(essence).filter(({ payloadBytes }) => payloadBytes > 0);
}

Deno.test(
  "what a pod sends to a peer outside the tunnel is counted, and nothing else",
  ROOT,
  () =>
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
          counts.count(pod);

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
          assert.deepEqual(counts.map.keys(), []);
          counts.count(pod);
          assert.equal(await visitor.talk("plain", 10), "echo");
          assert.deepEqual(sorted(), [{
            ...usual,
            peer: other.ipv4,
            payloadBytes: 10,
            way: `${one.ipv4} ${PORT} > ${other.ipv4} ${inbound}`,
          }], "answers to a plain connection");

          counts.forget(pod);
          counts.count(pod);
          const udp = await client.connectUdp("udp", other.ipv4, PORT);
          assert.equal(await client.talk("udp", 700), "echo");
          assert.deepEqual(sorted(), [{
            ...usual,
            protocol: "udp",
            peer: "others",
            payloadBytes: 700,
            way: `${one.ipv4} ${udp} > ${other.ipv4} ${PORT}`,
          }]);
        })
      )
    ),
);

Deno.test(
  "with strict egress what goes to a peer outside the tunnel is counted and dropped",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup((cgroup) =>
        withNamespaces(async (one, other) => {
          await using _server = await TestProcess.echo(other, undefined, [PORT, TUNNEL_PORT]);
          await using client = await TestProcess.client(one, cgroup);
          redirector.attach(UID, cgroup, false);
          redirector.guardCounts.count(cgroupId(cgroup));
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
            assert.equal(
              await client.talk(`${name}-udp`, 100),
              "echo",
              "nothing is promised of UDP",
            );
          }
          const counts = redirector.guardCounts.all();
          const tcp = counts.filter(({ protocol }) => protocol === "tcp");
          assert.equal(counts.length, 3, "UDP is counted by pod");
          assert.equal(
            tcp.every(({ packets, droppedPackets }) => packets === droppedPackets),
            true,
          );
          redirector.attach(UID, cgroup, false);
          assert.equal(await client.talk("v4", 100), "echo", "it is let through again");
        })
      )
    ),
);

/**
 * A route to 256 addresses of another namespace, all of which it answers at: they begin with this.
 */
async function manyAddresses(one: TestNamespace, other: TestNamespace): Promise<string> {
  await run("ip", "-netns", one.name, "route", "add", "10.97.1.0/24", "via", other.ipv4);
  await run("ip", "-netns", other.name, "route", "add", "local", "10.97.1.0/24", "dev", "lo");
  return "10.97.1.";
}

Deno.test(
  "of a pod that sends to many peers some are counted singly, and the rest together",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup((cgroup) =>
        withNamespaces(async (one, other) => {
          const { guardCounts: counts, deviceGuard } = redirector;
          const pod = cgroupId(cgroup);
          const prefix = await manyAddresses(one, other);
          const hosts = Array.from({ length: MANY }, (_, index) => `${prefix}${index + 1}`);
          await using _server = await TestProcess.echo(other, undefined, [PORT]);
          await using client = await TestProcess.client(one, cgroup);
          redirector.attach(UID, cgroup, false);
          const addresses = [one.ipv4, one.ipv6].map((text) => parseAddress(text));
          const { namespace } = one;
          const guarded = { id: pod, namespace, addresses, ...PERMISSIVE };
          deviceGuard.attach(guarded);
          counts.count(pod);
          for (const host of hosts) {
            await client.connect(host, host, PORT);
            await client.connectUdp(`${host}-udp`, host, PORT);
          }
          makePeer(redirector, ...hosts);
          for (const host of hosts) {
            assert.equal(await client.talk(host, 10), "echo");
            await client.talk(`${host}-udp`, 7, 0.001); // is answered from another address
          }
          for (const seen of ["cgroup", "device"] as const) {
            const all = counts.all().filter((each) => each.seen === seen).map(essence);
            const single = all.filter(({ peer }) => peer !== "others");
            assert.deepEqual(
              single.map(({ peer }) => peer).sort(),
              hosts.slice(0, MAX_COUNTED_PEERS).sort(),
            );
            assert(single.every(({ payloadBytes }) => payloadBytes === 10));
            const rest = all.filter(({ peer }) => peer === "others");
            assert.deepEqual(
              rest.map(({ protocol, payloadBytes }) => [protocol, payloadBytes]).sort(),
              [
                ["tcp", 10 * (MANY - MAX_COUNTED_PEERS)],
                ["udp", 7 * MANY],
              ],
            );
            const tcp = rest.find(({ protocol }) => protocol === "tcp");
            assert.match(tcp?.way ?? "", new RegExp(`> ${hosts[MAX_COUNTED_PEERS]} ${PORT}$`));
          }
          assert.equal(counts.map.keys().length, MAX_COUNTED_PEERS + 2);

          counts.forget(pod);
          counts.count(pod);
          const last = hosts.at(-1) ?? "";
          await client.talk(last, 1);
          const again = said(counts.all()).map(({ peer, payloadBytes }) => [peer, payloadBytes]);
          assert.deepEqual(again, [[last, 1], [last, 1]], "it has its share anew");
          deviceGuard.detach(guarded);
        })
      )
    ),
);

Deno.test(
  "a pod that is counted is counted whatever is in the map, and told as itself",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup((cgroup) =>
        withNamespaces(async (one, other) => {
          const { guardCounts: counts } = redirector;
          const pod = cgroupId(cgroup);
          await using _server = await TestProcess.echo(other, undefined, [PORT]);
          await using client = await TestProcess.client(one, cgroup);
          redirector.attach(UID, cgroup, false);
          await client.connect("v4", other.ipv4, PORT);
          await client.connect("v6", other.ipv6, PORT);
          makePeer(redirector, other.ipv4, other.ipv6);
          assert.equal(counts.counts(pod), false);
          await client.talk("v6", 500);
          assert.deepEqual(counts.all(), [], "it is not enrolled yet");

          counts.count(pod);
          assert.equal(counts.counts(pod), true);
          fill(counts.map);
          await client.talk("v4", 1000);
          const found = () =>
            said(counts.all()).map(({ pod, peer, payloadBytes }) => [pod, peer, payloadBytes]);
          assert.deepEqual(found(), [[pod, "others", 1000]]);
          counts.count(pod);
          assert.deepEqual(found(), [[pod, "others", 1000]], "nothing is counted anew");
          assert.throws(() => counts.count(pod + 1n), /E2BIG/, "another pod is not enrolled then");
          counts.forgetAllBut(new Set([pod]));
          assert.deepEqual(found(), [[pod, "others", 1000]]);
          assert.equal(counts.counts(pod), true);
          for (const key of counts.map.keys()) counts.map.delete(key);
          assert.equal(counts.counts(pod), false);
        })
      )
    ),
);
