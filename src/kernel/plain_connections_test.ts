/** Open connections and listeners of a namespace, as the kernel lists and ends them (root). */
import assert from "node:assert/strict";
import { formatAddress, parseAddress } from "../addresses.ts";
import { endConnections, isPlain, listeners, plainConnections } from "./plain_connections.ts";
import { TestProcess, withNamespaces } from "./places_for_tests.ts";
import { ROOT } from "../root_for_tests.ts";

const PORT = 9000;
const TUNNEL_PORT = 18443;

Deno.test(
  "open connections with peers outside the tunnel are found in both directions, and ended",
  ROOT,
  () =>
    withNamespaces(async (one, other) => {
      await using _server = await TestProcess.echo(other, undefined, [PORT, TUNNEL_PORT]);
      await using own = await TestProcess.echo(one, undefined, [PORT]);
      await using client = await TestProcess.client(one, undefined);
      await using visitor = await TestProcess.client(other, undefined);
      const peers = new Set([one.ipv4, one.ipv6, other.ipv4, other.ipv6]);
      const isPeer = (address: Uint8Array) => peers.has(formatAddress(address));
      const plain = () => plainConnections(one.namespace, isPeer, TUNNEL_PORT);
      const listed = () =>
        plain().sockets.map(({ state, local, remote }) =>
          `${state} ${formatAddress(local.address)} ${local.port} ${
            formatAddress(remote.address)
          } ${remote.port}`
        ).sort();

      await client.connect("tunnel", other.ipv4, TUNNEL_PORT);
      await client.connect("self", one.ipv4, PORT);
      await client.connect("loopback", "127.0.0.1", PORT);
      assert.deepEqual(plain(), { sockets: [], isComplete: true });
      const v4 = await client.connect("v4", other.ipv4, PORT);
      const v6 = await client.connect("v6", other.ipv6, PORT);
      const inbound = await visitor.connect("in", one.ipv4, PORT); // an IPv6 socket that speaks IPv4
      const expected = [
        `established ${one.ipv4} ${v4} ${other.ipv4} ${PORT}`,
        `established ${one.ipv6} ${v6} ${other.ipv6} ${PORT}`,
        `established ${one.ipv4} ${PORT} ${other.ipv4} ${inbound}`,
      ];
      assert.deepEqual(listed(), expected.toSorted());

      peers.delete(other.ipv6);
      assert.deepEqual(listed(), expected.filter((line) => !line.includes("fd97")).toSorted());
      peers.add(other.ipv6);

      const { sockets } = plain();
      assert.deepEqual(endConnections(one.namespace, sockets), { ended: 3, unsupported: 0 });
      assert.deepEqual(listed(), []);
      for (const name of ["v4", "v6"]) {
        assert.equal(await client.talk(name, 1), "ConnectionAbortedError");
      }
      assert.match(await visitor.talk("in", 1), /ConnectionResetError|BrokenPipeError/);
      assert.equal(await client.talk("tunnel", 1), "echo");
      assert.equal(await client.talk("self", 1), "echo");
      assert.equal(own.pid > 0, true);
      assert.deepEqual(
        endConnections(one.namespace, sockets),
        { ended: 3, unsupported: 0 },
        "gone",
      );
    }),
);

Deno.test(
  "listeners of a port are counted, with whose they are",
  ROOT,
  () =>
    withNamespaces(async (one, other) => {
      await using _server = await TestProcess.echo(one, undefined, [TUNNEL_PORT, PORT]);
      const on = (place: typeof one, port: number) =>
        listeners(place.namespace).filter(({ local }) => local.port === port);
      const sockets = on(one, TUNNEL_PORT);
      assert.deepEqual(
        sockets.map(({ state, local, uid }) => [state, formatAddress(local.address), uid]),
        [["listening", "::", 0]],
      );
      assert.equal((sockets[0]?.inode ?? 0) > 0, true);
      assert.deepEqual(on(one, 1), []);
      assert.deepEqual(on(other, TUNNEL_PORT), []);
    }),
);

Deno.test("plain is what goes to a peer, not to the pod itself and not through the tunnel", () => {
  const isPeer = (address: Uint8Array) => formatAddress(address).startsWith("10.");
  const socket = (local: [string, number], remote: [string, number]) => ({
    local: { address: new Uint8Array(parseAddress(local[0])), port: local[1] },
    remote: { address: new Uint8Array(parseAddress(remote[0])), port: remote[1] },
  });
  const judged = (local: [string, number], remote: [string, number]) =>
    isPlain(socket(local, remote), isPeer, TUNNEL_PORT);
  assert.equal(judged(["10.0.0.1", 5], ["10.0.0.2", 80]), true);
  assert.equal(judged(["10.0.0.1", 80], ["10.0.0.2", 5]), true);
  assert.equal(judged(["10.0.0.1", 5], ["10.0.0.1", 80]), false);
  assert.equal(judged(["10.0.0.1", 5], ["10.0.0.2", TUNNEL_PORT]), false);
  assert.equal(judged(["10.0.0.1", TUNNEL_PORT], ["10.0.0.2", 5]), false);
  assert.equal(judged(["127.0.0.1", 5], ["127.0.0.1", 18000]), false);
  assert.equal(judged(["127.128.0.1", 5], ["10.0.0.2", 80]), false, "nobody else is sent that");
  assert.equal(judged(["10.0.0.1", 5], ["192.0.2.1", 80]), false);
});
