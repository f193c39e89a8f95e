import { strictEqual } from "node:assert/strict";
import { decodePodUid, encodePodUid } from "./pod_uid.ts";

Deno.test("a UID comes back from its bytes, of whatever length it may have", () => {
  strictEqual(
    encodePodUid("a-b").toHex(),
    "30153013060a0992268993f22c640101".concat("31050c03612d62"),
  );
  for (const length of [1, 36, 105, 106, 107, 108, 109, 110, 127, 128, 234, 253]) {
    strictEqual(decodePodUid(encodePodUid("u".repeat(length))), "u".repeat(length));
  }
});

Deno.test("other bytes are no UID", () => {
  const good = encodePodUid("abc");
  for (
    const bytes of [
      [],
      [0x30],
      encodePodUid(""),
      [...good, 0],
      good.subarray(0, -1),
      good.with(2, 0x31),
      good.with(6, 0x0a),
      good.with(-4, 2),
      good.with(-5, 0x13),
      good.with(-1, 0xff),
    ]
  ) strictEqual(decodePodUid(Uint8Array.from(bytes)), undefined, `${bytes}`);
});
