import { strictEqual } from "node:assert/strict";
import { restAfter } from "./kubernetes.ts";

Deno.test("what is changed all the time takes a fifth of a processor, and nobody waits for long", () => {
  strictEqual(restAfter(0), 20);
  strictEqual(restAfter(5), 20);
  strictEqual(restAfter(50), 200, "50 of 250 milliseconds");
  strictEqual(restAfter(5_000), 800);
});
