/**
 * The promise: what is not between two enrolled pods is left alone. Shown by the kernel's own
 * tables, which no program of the gateway can change: both ends have one connection, and it is the
 * same.
 */
import assert from "node:assert/strict";
import { OUTBOUND_PORT, TUNNEL_PORT } from "../src/constants.ts";
import { endpoint, tcpSockets } from "./lab/kernel.ts";
import { OUTSIDE } from "./lab/network.ts";
import type { Place } from "./lab/place.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";

const PORT = 9000;

Deno.test("everything but connections between enrolled pods is untouched", async (t) => {
  await using lab = await openScene([
    ...WEB_AND_API,
    { name: "plain", node: "node-b" },
    { name: "opted-out", node: "node-a", annotation: "false" },
  ]);
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  const nodeA = lab.node("node-a");
  const places: Record<string, { place: Place; addresses: string[] }> = {
    "a pod that is not annotated": {
      place: lab.pod("plain"),
      addresses: lab.pod("plain").addresses,
    },
    'a pod annotated "false"': {
      place: lab.pod("opted-out"),
      addresses: lab.pod("opted-out").addresses,
    },
    "its own node": { place: nodeA, addresses: [nodeA.ipv4, nodeA.ipv6] },
    "another node": { place: lab.node("node-b"), addresses: [lab.node("node-b").ipv4] },
    "an address outside the cluster": { place: lab.outside, addresses: Object.values(OUTSIDE) },
    "itself": { place: web, addresses: web.addresses },
  };
  for (const { place } of Object.values(places)) await place.serve("hello", PORT);
  await api.serve("hello", PORT);

  await t.step("the detector sees the relay between enrolled pods", async () => {
    const { own, ports } = await connection(web, api, api.ipv4!);
    assert.equal(own.length, 0, "no socket of the client is connected to the server's address");
    assert.ok(ports.has(OUTBOUND_PORT) && ports.has(TUNNEL_PORT));
  });

  for (const [name, { place, addresses }] of Object.entries(places)) {
    await t.step(`an enrolled pod reaches ${name} directly`, async () => {
      for (const address of addresses) await assertDirect(web, place, address);
    });
    if (place === web) continue;
    await t.step(`an enrolled pod is reached directly from ${name}`, async () => {
      for (const address of web.addresses) await assertDirect(place, web, address);
    });
  }

  await api.serve("udp", PORT);
  await t.step("UDP between enrolled pods is untouched", async () => {
    for (const host of api.addresses) {
      const { result } = await web.connect("udp", host, PORT);
      assert.deepEqual(result.getpeername, [host, PORT]);
      const [address, port] = result.getsockname as [string, number];
      const { source } = result.server as { source: [string, number] };
      assert.deepEqual([source[0].replace("::ffff:", ""), source[1]], [address, port]);
      assert.ok(web.addresses.includes(address));
    }
  });
});

/**
 * A client's connection and its server's are one and the same, to the address and port that was
 * dialled.
 */
async function assertDirect(client: Place, server: Place, address: string): Promise<void> {
  const { own, servers, ports } = await connection(client, server, address);
  assert.equal(own.length, 1, `one connection to ${address}`);
  assert.deepEqual(
    servers,
    own.map(({ local, peer }) => ({ state: "ESTAB", local: peer, peer: local })),
  );
  assert.ok(!ports.has(OUTBOUND_PORT) && !ports.has(TUNNEL_PORT), "no connection to a relay");
}

/**
 * The kernel's view of an open conversation: the client's sockets to `address`, the server's of
 * that port, and the ports of every connection that came with it (idle tunnels of earlier ones may
 * still be there).
 */
async function connection(client: Place, server: Place, address: string) {
  const established = async (place: Place) =>
    (await tcpSockets(place)).filter(({ state }) => state === "ESTAB");
  const before = new Set((await established(client)).map(({ local, peer }) => `${local} ${peer}`));
  await using talking = client.startClient("send", address, PORT);
  await talking.waitForEvent(({ event }) => event === "sent");
  const ofClient = (await established(client))
    .filter(({ local, peer }) => !before.has(`${local} ${peer}`));
  const own = ofClient.filter(({ peer }) => peer === endpoint(address, PORT));
  const servers = (await established(server)).filter(({ local, peer }) =>
    local === endpoint(address, PORT) && (own.length === 0 || peer === own[0]?.local)
  );
  const ports = new Set(ofClient.map(({ peer }) => Number(peer.split(":").at(-1))));
  return { own, servers, ports };
}
