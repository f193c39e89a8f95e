import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { RelayBench } from "../../standalone/relay_for_tests.ts";

Deno.test("what a namespace's pods are refused takes no line of another's, and each pod says what it left out", async () => {
  using bench = new RelayBench();
  const worker = bench.worker();
  const names = ["a", "b", "c", "d", "e", "f", "g", "h"];
  const evil = await Promise.all(names.map((name) => bench.pod(worker, name, {}, "evil")));
  const web = await bench.pod(worker, "web");
  /** What the last lines of `pod` say was left out. */
  const told = (pod: string) =>
    bench.events.flatMap((event) =>
      event.type === "log" && event.fields.pod === pod ? [event.fields.suppressed ?? 0] : []
    );
  for (let time = 0; time < 100; time++) for (const pod of evil) pod.refuse("flood", "no");
  strictEqual(names.flatMap((name) => told(`evil/${name}`)).length, 300, "the namespace's share");
  web.refuse("policy", "no");
  deepStrictEqual(told("shop/web"), [0]);

  const written = told("evil/a").length;
  bench.now += 60_000;
  for (const pod of evil) pod.refuse("flood", "no");
  deepStrictEqual(told("evil/a").slice(written), [100 - written]);
  const all = names.flatMap((name) => told(`evil/${name}`));
  const left = all.reduce<number>((sum, each) => sum + Number(each), 0);
  strictEqual(all.length + left, 808, "every line is written or counted");
});

Deno.test("of several workers each has its part of a pod's lines", async () => {
  using bench = new RelayBench();
  const pod = await bench.pod(bench.worker({}, 2));
  for (let time = 0; time < 100; time++) pod.refuse("flood", "no");
  strictEqual(bench.events.filter(({ type }) => type === "log").length, 25);
});
