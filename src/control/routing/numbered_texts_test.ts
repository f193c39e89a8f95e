/** With the kernel's own maps (root). */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { decodeNumber, encodeSlice } from "../../kernel/maps.ts";
import { withMaps } from "../../kernel/maps_for_tests.ts";
import { NumberedTexts } from "./numbered_texts.ts";
import { ROOT } from "../../root_for_tests.ts";

Deno.test(
  "numbers are given out in a circle, and there may be none left",
  ROOT,
  () =>
    withMaps(({ slices }) => {
      const texts = new NumberedTexts(slices, encodeSlice, 3);
      const use = (...names: string[]) =>
        names.map((name) => {
          texts.use(name);
          return texts.numberOf(name);
        });
      deepStrictEqual(use("a", "b", "b"), [1, 2, 2]);
      texts.release("a");
      deepStrictEqual(use("c", "d", "e"), [3, 1, 0], "the fourth has none");
      strictEqual(texts.audit(), 0, "and is not missed");
      texts.release("e");
      texts.release("b");
      deepStrictEqual(use("f"), [0], "the text was used twice");
      texts.release("f");
      texts.release("b");
      deepStrictEqual([...use("f"), slices.keys().length], [2, 3]);
    }),
);

Deno.test(
  "an earlier agent's numbers are not given out before they are forgotten",
  ROOT,
  () =>
    withMaps(({ slices }) => {
      new NumberedTexts(slices, encodeSlice, 3).use("a");
      const next = new NumberedTexts(slices, encodeSlice, 3);
      for (const name of ["b", "c", "d"]) next.use(name);
      deepStrictEqual(["b", "c", "d"].map((name) => next.numberOf(name)), [2, 3, 0]);
      next.prune();
      next.use("e");
      strictEqual(next.numberOf("e"), 1);
      deepStrictEqual(slices.keys().map(decodeNumber).sort(), [1, 2, 3]);
    }),
);
