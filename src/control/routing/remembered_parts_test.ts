/** With the kernel's own maps (root). */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { Peer } from "../../cluster/registry.ts";
import { encodeNumber, encodePeer, encodeSlice } from "../../kernel/maps.ts";
import { withMaps } from "../../kernel/maps_for_tests.ts";
import { Peers } from "./peers.ts";
import { rememberedParts } from "./remembered_parts.ts";
import { ROOT } from "../../root_for_tests.ts";

const SILENT = { peersChanged: () => {}, peersLeaving: () => {} };

function peer(address: string, node: string, slice: string): Peer {
  const identity = `spiffe://td/ns/shop/sa/${node}`;
  return { address, identity, uid: `uid-${address}`, pod: "shop/web", node, slice, ready: true };
}

Deno.test(
  "an agent that starts finds which slices its predecessor has read",
  ROOT,
  () =>
    withMaps((maps) => {
      deepStrictEqual(rememberedParts(maps), []);
      const all = [
        peer("10.0.0.1", "n1", "kube-gateway/registry-n1-ipv4-0"),
        peer("10.0.0.2", "n1", "kube-gateway/registry-n1-ipv4-0"),
        peer("10.0.0.3", "n1", "kube-gateway/registry-n1-ipv4-1"),
        peer("fd00::3", "n2.example", "kube-gateway/registry-n2.example-ipv6-0"),
      ];
      const index = new Map(all.map((each) => [each.address, each]));
      const peers = new Peers(maps, SILENT, {
        get: (address) => index.get(address),
        get size() {
          return index.size;
        },
        [Symbol.iterator]: function* () {
          yield* index.values();
        },
      });
      const appears = (now: Peer) => ({ address: now.address, before: undefined, now });
      peers.apply(all.map(appears));
      const told = () =>
        rememberedParts(maps).map(({ slice, node, peers, wasBelieved }) => {
          strictEqual(wasBelieved, true);
          for (const each of peers) {
            deepStrictEqual(
              [each.node, each.slice, each.identity, each.ready],
              [node, slice, `spiffe://td/ns/shop/sa/${node}`, true],
            );
          }
          return [node, slice, ...peers.map(({ address }) => address).sort()].join(" ");
        }).sort();
      const expected = [
        "n1 kube-gateway/registry-n1-ipv4-0 10.0.0.1 10.0.0.2",
        "n1 kube-gateway/registry-n1-ipv4-1 10.0.0.3",
        "n2.example kube-gateway/registry-n2.example-ipv6-0 fd00::3",
      ];
      deepStrictEqual(told(), expected);

      peers.prune();
      const { key } = maps.slices.entries().next().value ?? { key: encodeNumber(0) };
      maps.slices.set(key, encodeSlice("n9/kube-gateway/other"));
      deepStrictEqual(peers.audit(), { peer: 0, identity: 0, slice: 1 });
      deepStrictEqual(told(), expected, "an audit mends it");

      const [, , moving] = all;
      const moved = peer("10.0.0.3", "n1", "kube-gateway/registry-n1-ipv4-0");
      index.set(moved.address, moved);
      peers.apply([{ address: moved.address, before: moving, now: moved }]);
      deepStrictEqual(told()[0], `${expected[0]} 10.0.0.3`);
      strictEqual(maps.slices.keys().length, 2, "a slice without peers is forgotten");
      deepStrictEqual(peers.audit(), { peer: 0, identity: 0, slice: 0 });
    }),
);

Deno.test(
  "peers of whom nobody knows where they stood are one part",
  ROOT,
  () =>
    withMaps((maps) => {
      const address = new Uint8Array(16).fill(0xfd);
      maps.peers.set(address, encodePeer({ identity: 7, generation: 1, ready: false, slice: 0 }));
      const [part] = rememberedParts(maps);
      deepStrictEqual([part?.node, part?.slice, part?.peers.length], ["", "", 1]);
      deepStrictEqual([part?.peers[0]?.identity, part?.peers[0]?.ready], ["", false]);
    }),
);
