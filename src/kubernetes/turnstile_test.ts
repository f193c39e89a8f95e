import { deepStrictEqual, rejects } from "node:assert/strict";
import { Turnstile } from "./turnstile.ts";

Deno.test("so many are in at a time, the others wait in order, and who gives up is passed over", async () => {
  const turnstile = new Turnstile(2);
  const never = new AbortController().signal;
  const entered: string[] = [];
  const enter = async (name: string, signal = never) => {
    const place = await turnstile.enter(signal);
    entered.push(name);
    return place;
  };
  const [first, second] = await Promise.all([enter("a"), enter("b")]);
  const impatient = new AbortController();
  const [c, d, e] = [enter("c", impatient.signal), enter("d"), enter("e")];
  impatient.abort(new Error("tired"));
  await rejects(c, /tired/);
  deepStrictEqual(entered, ["a", "b"]);
  second?.[Symbol.dispose]();
  (await d)[Symbol.dispose]();
  await e;
  deepStrictEqual(entered, ["a", "b", "d", "e"]);
  first?.[Symbol.dispose]();
  await enter("f");
  await rejects(enter("g", AbortSignal.abort(new Error("gone"))), /gone/);
});
