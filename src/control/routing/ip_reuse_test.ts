/**
 * With the kernel's own maps (root): an address that changes hands again and again is whose the
 * registry says it is.
 */
import { strictEqual } from "node:assert/strict";
import { parseAddress } from "../../addresses.ts";
import { NOBODY_DENIED } from "../../cluster/deny_list.ts";
import type { ClusterObjects } from "../../cluster/cluster.ts";
import type { Peer } from "../../cluster/registry.ts";
import { withMaps } from "../../kernel/maps_for_tests.ts";
import { KnownPeers } from "../../relay/loop/known_peers.ts";
import { PeerIndex } from "../rules/peer_index.ts";
import { VanishedParts } from "../rules/vanished_parts.ts";
import { Peers } from "./peers.ts";
import { ROOT } from "../../root_for_tests.ts";

const CYCLES = 500;
const ADDRESSES = ["10.0.0.1", "fd00::1"];

/** How one pod's end and the next one's beginning reach another node's agent. */
const ORDERS: readonly (readonly ("gone" | "both" | "next")[])[] = [
  ["next"], // at once
  ["gone", "next"], // with nobody in between
  ["both", "next"], // the old entry goes late
];

Deno.test(
  "an address moves from one identity to another 500 times, in every order",
  ROOT,
  async () => {
    await withMaps((redirector) => {
      const index = new PeerIndex("n1");
      const peers = new Peers(
        redirector,
        { peersChanged: () => {}, peersLeaving: () => {} },
        index,
      );
      const known = new KnownPeers(redirector.peers, redirector.identities);
      const vanished = new VanishedParts();
      let now = 0;
      const show = (...shown: Peer[]) => {
        const registry = [...new Set(shown.map(({ node }) => node))].map((node) => ({
          slice: node,
          node,
          peers: shown.filter((peer) => peer.node === node),
          refused: [],
        }));
        const objects = { ...NOTHING, registry: vanished.apply(registry, now, () => 4_000) };
        peers.apply(index.update(objects));
      };
      let before = owner(0);
      show(...before);
      for (let cycle = 1; cycle <= CYCLES; cycle++) {
        const next = owner(cycle);
        for (const step of ORDERS[cycle % ORDERS.length] ?? []) {
          now += 100;
          if (step === "gone") show();
          if (step === "both") show(...before, ...next);
          if (step === "next") show(...next);
        }
        // What went with a whole slice is believed a while longer, and no more.
        now += 4_000;
        show(...next);
        for (const { address, identity } of next) {
          const found = known.find(parseAddress(address));
          strictEqual(found?.identity, identity, `cycle ${cycle}, ${address}`);
        }
        strictEqual([...redirector.peers.keys()].length, ADDRESSES.length);
        before = next;
      }
    });
  },
);

/**
 * The pod that has the addresses in this cycle: of another identity, and on another node every
 * second time.
 */
function owner(cycle: number): Peer[] {
  return ADDRESSES.map((address) => ({
    address,
    identity: `spiffe://cluster.local/ns/shop/sa/${cycle % 2 === 0 ? "a" : "b"}`,
    uid: `uid-${cycle}`,
    pod: `shop/pod-${cycle}`,
    node: cycle % 4 < 2 ? "n2" : "n3",
    slice: "kube-gateway/one",
    ready: true,
  }));
}

const NOTHING: ClusterObjects = {
  pods: [],
  namespaces: new Map(),
  hasNamespaces: true,
  runtimeHandlers: new Map(),
  registry: [],
  services: new Map(),
  endpoints: new Map(),
  nodes: new Map(),
  denied: NOBODY_DENIED,
  unread: [],
  complete: true,
};
