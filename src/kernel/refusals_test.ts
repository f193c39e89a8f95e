/** What the kernel refuses and says of it (root): real connections out of a cgroup. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmdirSync } from "node:fs";
import { formatAddress, parseAddress } from "../addresses.ts";
import { cgroupId } from "../native/file_system.ts";
import { Socket } from "../native/socket.ts";
import { encodeEgressRule, encodeId, encodePeer, encodePod, encodeRange } from "./maps.ts";
import { fill, withMaps } from "./maps_for_tests.ts";
import { type TestNamespace, TestProcess, withCgroup, withNamespaces } from "./places_for_tests.ts";
import type { KernelRefusal } from "./refusals.ts";
import { REFUSAL_REASONS } from "./refusals.ts";
import { ROOT } from "../root_for_tests.ts";

const UID = "0c5f3b1e-6d5e-4c64-9d3a-333333333333";
const PORT = 9000;
const TUNNEL_PORT = 18443;

function bytes(address: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(parseAddress(address));
}

function cookieOf({ namespace }: TestNamespace): bigint {
  using socket = namespace.run(() => Socket.forAddress(parseAddress("127.0.0.1")));
  return socket.namespaceCookie();
}

function essence({ cgroup, reason, count, last }: KernelRefusal) {
  const { address, port } = last.destination;
  return {
    cgroup,
    reason,
    count,
    cookie: last.namespaceCookie,
    process: last.process,
    to: `${formatAddress(address)} ${port}`,
  };
}

Deno.test("the reasons are those of bpf/maps.h", () => {
  const header = readFileSync(new URL("../../bpf/maps.h", import.meta.url), "utf8");
  const found = [...header.matchAll(/\b(REFUSED|DRY_RUN)_(\w+) = (\d+)/g)]
    .map(([, kind, name = "", number]) => [
      number,
      `${name.toLowerCase()}${kind === "DRY_RUN" ? "_dry_run" : ""}`,
    ]);
  assert.deepEqual(Object.entries(REFUSAL_REASONS), found);
});

Deno.test(
  "every refused connection is counted by pod and reason, and the last is described",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup((above) =>
        withNamespaces(async (one, other) => {
          const pod = `${above}/pod`;
          const container = `${pod}/container`;
          for (const directory of [pod, container]) mkdirSync(directory);
          try {
            const { refusals } = redirector;
            await using _server = await TestProcess.echo(other, undefined, [PORT, TUNNEL_PORT]);
            await using client = await TestProcess.client(one, container);
            await using elsewhere = await TestProcess.client(other, container);
            redirector.peers.set(
              bytes(other.ipv4),
              encodePeer({ identity: 1, generation: 1, ready: true, slice: 0 }),
            );
            redirector.peers.set(
              bytes(other.ipv6),
              encodePeer({ identity: 1, generation: 1, ready: true, slice: 0 }),
            );
            const refused = async (process: TestProcess, host: string, port = PORT) =>
              assert.equal(await process.connect("any", host, port), "ConnectionRefusedError");
            const own = () => refusals.all().map(essence);

            // Nobody has decided on the pod: its containers have no counts of their own.
            redirector.hold.below([above]);
            await using neighbour = await TestProcess.client(one, pod);
            await refused(neighbour, other.ipv4);
            await refused(client, other.ipv6);
            const usual = { cookie: cookieOf(one), process: client.pid };
            const undecided = {
              ...usual,
              cgroup: 0n,
              reason: "undecided",
              count: 2,
              to: `${other.ipv6} ${PORT}`,
            };
            assert.deepEqual(own(), [undecided]);

            // Its own programs, and no listener yet.
            redirector.attach(UID, pod, false);
            const began = Date.now();
            await refused(client, other.ipv4);
            await refused(client, other.ipv4, TUNNEL_PORT);
            const held = {
              ...usual,
              cgroup: cgroupId(pod),
              reason: "namespace",
              count: 2,
              to: `${other.ipv4} ${TUNNEL_PORT}`,
            };
            assert.deepEqual(own().filter(({ reason }) => reason !== "undecided"), [held]);
            const [at = 0] = refusals.all().filter(({ reason }) => reason === "namespace")
              .map(({ last }) => last.atMilliseconds);
            assert(at > began - 100 && at < Date.now() + 100, `${at - began} ms after it began`);

            // The relay's listener is not there, whoever else may be: as without one.
            const encoded = encodePod({ ipv4: bytes(one.ipv4), ipv6: undefined, outboundPort: 1 });
            redirector.pods.set(encodeId(cookieOf(one)), encoded);
            await refused(client, other.ipv4);
            const without = { ...held, count: 3, to: `${other.ipv4} ${PORT}` };
            assert.deepEqual(own().find(({ reason }) => reason === "namespace"), without);

            // A peer's relay, as another mesh's sidecar dials it.
            assert.match(await client.connect("tunnel", other.ipv4, TUNNEL_PORT), /^\d+$/);
            assert.equal(await client.talk("tunnel", 1), "echo");

            // A process of the pod in a namespace of its own.
            await refused(elsewhere, one.ipv4.replace(/1$/, "2"));
            assert.deepEqual(own().find(({ reason }) => reason === "namespace"), {
              ...held,
              count: 4,
              cookie: cookieOf(other),
              process: elsewhere.pid,
              to: `${other.ipv4} ${PORT}`,
            });

            redirector.attach(UID, pod, true);
            redirector.egressRules.set(
              encodeRange(bytes("10.96.0.0"), 96 + 12),
              encodeEgressRule([]),
            );
            await refused(client, "10.97.0.9");
            assert.deepEqual(own().find(({ reason }) => reason === "egress"), {
              ...usual,
              cgroup: cgroupId(pod),
              reason: "egress",
              count: 1,
              to: `10.97.0.9 ${PORT}`,
            });
            assert.equal(refusals.all().length, 3);

            refusals.forgetAllBut(() => true);
            assert.equal(refusals.all().length, 3);
            refusals.forgetAllBut((cgroup) => cgroup !== cgroupId(pod));
            assert.deepEqual(own(), [undecided]);
          } finally {
            redirector.hold.below([]);
          }
        }).finally(() => {
          for (const name of ["pod/container", "pod"]) rmdirSync(`${above}/${name}`);
        })
      )
    ),
);

Deno.test(
  "what is counted for a pod is kept, however much is counted for others",
  ROOT,
  () =>
    withMaps((redirector) =>
      withCgroup((cgroup) =>
        withNamespaces(async (one, other) => {
          const { refusals } = redirector;
          await using client = await TestProcess.client(one, cgroup);
          redirector.attach(UID, cgroup, false);
          redirector.peers.set(
            bytes(other.ipv4),
            encodePeer({ identity: 1, generation: 1, ready: true, slice: 0 }),
          );
          const counted = async () => {
            assert.equal(await client.connect("any", other.ipv4, PORT), "ConnectionRefusedError");
            return refusals.all().find((each) => each.cgroup === cgroupId(cgroup))?.count;
          };
          assert.equal(await counted(), 1);
          fill(refusals.map);
          assert.equal(await counted(), 2);
        })
      )
    ),
);
