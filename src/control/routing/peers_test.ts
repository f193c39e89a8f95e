/** With the kernel's own maps (root). */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { parseAddress } from "../../addresses.ts";
import { KnownPeers } from "../../relay/loop/known_peers.ts";
import type { PeerChange } from "../rules/peer_index.ts";
import { withMaps } from "../../kernel/maps_for_tests.ts";
import { Peers } from "./peers.ts";
import type { Peer } from "../../cluster/registry.ts";

const A: Peer = {
  address: "10.0.0.1",
  identity: "spiffe://td/ns/shop/sa/web",
  uid: "uid-a",
  pod: "shop/a",
  node: "n1",
  ready: true,
};
const B: Peer = { ...A, address: "fd00::2", uid: "uid-b", pod: "shop/b" };
const added = (now: Peer): PeerChange => ({ address: now.address, before: undefined, now });
const gone = (before: Peer): PeerChange => ({ address: before.address, before, now: undefined });

Deno.test("what the registry says is what the workers find in the kernel's maps", async () => {
  await withMaps((redirector) => {
    let told = 0;
    const known = new KnownPeers(redirector.peers, redirector.identities);
    const peersChanged = () => {
      told++;
      known.changed();
    };
    const peers = new Peers(redirector, { peersChanged });
    const find = (address: string) => known.find(parseAddress(address));

    peers.apply([added(A), added(B)]);
    const first = find(A.address);
    deepStrictEqual([first?.name, first?.identity], [A.address, A.identity]);
    strictEqual(find(B.address)?.identity, A.identity);
    strictEqual(find("10.0.0.9"), undefined);
    strictEqual(redirector.identities.keys().length, 1, "one identity for both");
    strictEqual(told, 0, "nobody used what was not there");

    peers.apply([{ address: A.address, before: A, now: { ...A, ready: false } }]);
    strictEqual(find(A.address)?.ready, false, "its agent cannot serve it for now");
    strictEqual(first !== undefined && known.isCurrent(first), true, "the same pod");
    peers.apply([{ address: A.address, before: { ...A, ready: false }, now: A }]);
    strictEqual(find(A.address)?.ready, true);
    strictEqual(told, 2, "who waits for it is told");
    told = 0;

    const moved = { ...A, uid: "uid-new", identity: "spiffe://td/ns/shop/sa/other" };
    peers.apply([{ address: A.address, before: A, now: moved }]);
    strictEqual(find(A.address)?.identity, moved.identity);
    strictEqual(first !== undefined && known.isCurrent(first), false, "another pod by now");
    strictEqual(told, 1);

    peers.apply([gone(moved)]);
    strictEqual(find(A.address), undefined);
    strictEqual(redirector.identities.keys().length, 1);
    peers.apply([gone(B)]);
    deepStrictEqual([redirector.peers.keys(), redirector.identities.keys()], [[], []]);
  });
});

Deno.test("what an earlier agent has left stays until the registry is known whole", async () => {
  await withMaps((redirector) => {
    const silent = { peersChanged: () => {} };
    new Peers(redirector, silent).apply([added(A), added(B)]);
    const next = new Peers(redirector, silent);
    const known = new KnownPeers(redirector.peers, redirector.identities);
    const other = { ...A, identity: "spiffe://td/ns/shop/sa/other" };
    next.apply([added(other)]);
    strictEqual(known.find(parseAddress(B.address))?.identity, B.identity, "the earlier one's");
    strictEqual(known.find(parseAddress(A.address))?.identity, other.identity);
    next.prune((address) => address === A.address);
    strictEqual(known.find(parseAddress(B.address)), undefined);
    strictEqual(redirector.identities.keys().length, 1);
  });
});
