/** With the kernel's own maps (root). */
import { strictEqual } from "node:assert/strict";
import { encodeNumber, encodeRange } from "../kernel/maps.ts";
import { withMaps } from "../kernel/maps_for_tests.ts";
import { ROOT } from "../root_for_tests.ts";

Deno.test(
  "all entries are read, however many, of a hash map and of a trie",
  ROOT,
  () =>
    withMaps(({ nodeAddresses, refusedRanges }) => {
      for (const count of [0, 1, 4_096, 20_000]) {
        for (let number = 0; number < count; number++) {
          const address = new Uint8Array(16);
          new DataView(address.buffer).setUint32(12, number);
          nodeAddresses.set(address, encodeNumber(number));
          refusedRanges.set(encodeRange(address, 128), encodeNumber(number));
        }
        for (const map of [nodeAddresses, refusedRanges]) {
          const seen = new Set<number>();
          for (const { key, value } of map.entries()) {
            const number = new DataView(value.buffer).getUint32(0, true);
            strictEqual(new DataView(key.buffer).getUint32(map.keySize - 4), number);
            seen.add(number);
          }
          strictEqual(seen.size, count, map.name);
        }
      }
    }),
);
