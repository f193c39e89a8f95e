import { deepStrictEqual } from "node:assert/strict";
import { noteGarbage } from "./memory.ts";
import { delay } from "./waiting.ts";

Deno.test("what large texts leave is collected when there is much of it, what small ones leave is V8's", async () => {
  const garbage = new WeakRef({ text: "x".repeat(1_000) });
  await delay(0); // a reference that was just made keeps its object for a turn
  const isThere = () => garbage.deref() !== undefined;
  for (let count = 0; count < 1_000; count++) noteGarbage(100_000);
  const states = [isThere()];
  await delay(0);
  for (let count = 0; count < 40; count++) noteGarbage(1_000_000);
  states.push(isThere());
  deepStrictEqual(states, [true, false]);
});
