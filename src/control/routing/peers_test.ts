/** With the kernel's own maps (root). */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { parseAddress } from "../../addresses.ts";
import { KnownPeers } from "../../relay/loop/known_peers.ts";
import { NOBODY_DENIED } from "../../cluster/deny_list.ts";
import type { ClusterObjects } from "../../cluster/cluster.ts";
import type { Peer, RegistryPart } from "../../cluster/registry.ts";
import {
  CAPACITY,
  decodePeer,
  encodeIdentity,
  encodeNumber,
  encodePeer,
} from "../../kernel/maps.ts";
import { withMaps } from "../../kernel/maps_for_tests.ts";
import type { BpfMap } from "../../native/bpf_map.ts";
import { PeerIndex } from "../rules/peer_index.ts";
import { rangeText } from "../rules/refusal.ts";
import { Peers } from "./peers.ts";
import { ROOT } from "../../root_for_tests.ts";

const A: Peer = {
  address: "10.0.0.1",
  identity: "spiffe://td/ns/shop/sa/web",
  uid: "uid-a",
  pod: "shop/a",
  node: "n1",
  slice: "kube-gateway/n1",
  ready: true,
};
const B: Peer = { ...A, address: "fd00::2", uid: "uid-b", pod: "shop/b" };
const OTHER = "spiffe://td/ns/shop/sa/other";
const SILENT = { peersChanged: () => {}, peersLeaving: () => {} };

/** The cluster as far as peers need it. */
function cluster(...peers: Peer[]): ClusterObjects {
  const nodes = new Set(peers.map(({ node }) => node));
  const registry: RegistryPart[] = [...nodes].map((node) => ({
    slice: `kube-gateway/${node}`,
    node,
    peers: peers.filter((peer) => peer.node === node),
    refused: [],
  }));
  return {
    pods: [],
    namespaces: new Map(),
    hasNamespaces: true,
    runtimeHandlers: new Map(),
    registry,
    services: new Map(),
    endpoints: new Map(),
    nodes: new Map(),
    denied: NOBODY_DENIED,
    unread: [],
    complete: true,
  };
}

function many(count: number): Peer[] {
  return Array.from({ length: count }, (_, index) => ({
    ...A,
    address: `10.${1 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`,
    uid: `uid-${index}`,
    identity: `spiffe://td/ns/a/sa/s${index % 50}`,
    node: `n${index % 20}`,
  }));
}

Deno.test(
  "what the registry says is what the workers find in the kernel's maps",
  ROOT,
  async () => {
    await withMaps((redirector) => {
      let told = 0;
      const known = new KnownPeers(redirector.peers, redirector.identities);
      const peersChanged = () => {
        told++;
        known.changed();
      };
      const index = new PeerIndex("n1");
      const peers = new Peers(redirector, { ...SILENT, peersChanged }, index);
      const say = (...list: Peer[]) => peers.apply(index.update(cluster(...list)));
      const find = (address: string) => known.find(parseAddress(address));

      say(A, B);
      const first = find(A.address);
      deepStrictEqual([first?.name, first?.identity], [A.address, A.identity]);
      strictEqual(find(B.address)?.identity, A.identity);
      strictEqual(find("10.0.0.9"), undefined);
      strictEqual(redirector.identities.keys().length, 1, "one identity for both");
      strictEqual(told, 0, "nobody used what was not there");

      const isReady = (address: string) =>
        decodePeer(
          redirector.peers.get(new Uint8Array(parseAddress(address))) ?? new Uint8Array(12),
        )
          .ready;
      say({ ...A, ready: false }, B);
      strictEqual(isReady(A.address), false, "its agent cannot serve it for now");
      strictEqual(first !== undefined && known.isCurrent(first), true, "the same pod");
      say(A, B);
      strictEqual(isReady(A.address), true);
      strictEqual(told, 2, "who waits for it is told");
      told = 0;

      const moved = { ...A, uid: "uid-new", identity: OTHER };
      say(moved, B);
      strictEqual(find(A.address)?.identity, moved.identity);
      strictEqual(first !== undefined && known.isCurrent(first), false, "another pod by now");
      strictEqual(told, 1);

      say(B);
      strictEqual(find(A.address), undefined);
      strictEqual(redirector.identities.keys().length, 1);
      say();
      deepStrictEqual([redirector.peers.keys(), redirector.identities.keys()], [[], []]);
    });
  },
);

Deno.test(
  "what an earlier agent has left stays until the registry is known whole",
  ROOT,
  async () => {
    await withMaps((redirector) => {
      const [earlier, index] = [new PeerIndex("n1"), new PeerIndex("n1")];
      new Peers(redirector, SILENT, earlier).apply(earlier.update(cluster(A, B)));
      const next = new Peers(redirector, SILENT, index);
      const known = new KnownPeers(redirector.peers, redirector.identities);
      next.apply(index.update(cluster({ ...A, identity: OTHER })));
      deepStrictEqual(next.audit(), {}, "there is nothing to compare with yet");
      strictEqual(known.find(parseAddress(B.address))?.identity, B.identity, "the earlier one's");
      strictEqual(known.find(parseAddress(A.address))?.identity, OTHER);
      next.prune();
      strictEqual(known.find(parseAddress(B.address)), undefined);
      strictEqual(redirector.identities.keys().length, 1);
    });
  },
);

Deno.test(
  "a full map costs the peers that find no room: they are refused, and written when there is room",
  ROOT,
  async () => {
    await withMaps((redirector) => {
      const index = new PeerIndex("n1");
      const peers = new Peers(redirector, SILENT, index);
      peers.prune();
      const foreign = fill(redirector.peers, CAPACITY.peers - 1);
      peers.apply(index.update(cluster(A, B)));
      deepStrictEqual(peers.refusals().flatMap(({ ranges }) => ranges.map(rangeText)), [B.address]);
      const known = new KnownPeers(redirector.peers, redirector.identities);
      strictEqual(known.find(parseAddress(A.address))?.identity, A.identity);
      const moved = { ...A, identity: OTHER, uid: "uid-new" };
      peers.apply(index.update(cluster(moved, B)));
      strictEqual(known.find(parseAddress(A.address))?.identity, OTHER, "it goes on");
      strictEqual(peers.refusals().length, 1);
      for (const key of foreign.slice(0, 10)) redirector.peers.delete(key);
      peers.apply([]);
      deepStrictEqual(peers.refusals(), []);
      strictEqual(known.find(parseAddress(B.address))?.identity, B.identity);
    });
  },
);

Deno.test(
  "an audit finds what was removed, changed and added behind our back, and says how much",
  ROOT,
  async () => {
    await withMaps((redirector) => {
      const index = new PeerIndex("n1");
      let told = 0;
      const peers = new Peers(redirector, { ...SILENT, peersChanged: () => told++ }, index);
      const all = many(10_000);
      peers.apply(index.update(cluster(...all)));
      peers.prune();
      deepStrictEqual(peers.audit(), { peer: 0, identity: 0, slice: 0 });
      const key = (index: number) => new Uint8Array(parseAddress(all[index]?.address ?? ""));
      for (let index = 0; index < 7; index++) redirector.peers.delete(key(index));
      const [right] = [decodePeer(redirector.peers.get(key(10)) ?? new Uint8Array(12))];
      redirector.peers.set(key(20), encodePeer({ ...right, identity: 999_999 }));
      redirector.peers.set(key(21), encodePeer({ ...right, ready: false }));
      redirector.peers.set(key(22), encodePeer({ ...right, slice: right.slice + 1 }));
      redirector.peers.set(new Uint8Array(parseAddress("192.0.2.1")), encodePeer(right));
      redirector.identities.delete(encodeNumber(1));
      redirector.identities.set(encodeNumber(2), encodeIdentity(OTHER));
      redirector.identities.set(encodeNumber(88_888), encodeIdentity(OTHER));
      deepStrictEqual(peers.audit(), { peer: 11, identity: 3, slice: 0 });
      strictEqual(told, 1);
      deepStrictEqual(peers.audit(), { peer: 0, identity: 0, slice: 0 });
      const known = new KnownPeers(redirector.peers, redirector.identities);
      strictEqual(redirector.peers.keys().length, all.length);
      for (const peer of all) {
        strictEqual(known.find(parseAddress(peer.address))?.identity, peer.identity);
      }
    });
  },
);

/** Fills a map with keys that nobody knows. */
function fill(map: BpfMap, count: number): Uint8Array<ArrayBuffer>[] {
  return Array.from({ length: count }, (_, index) => {
    const key = new Uint8Array(map.keySize);
    key[0] = 0x20;
    new DataView(key.buffer).setUint32(4, index);
    map.set(key, new Uint8Array(map.valueSize));
    return key;
  });
}
