import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { Audit, type Audited } from "./audit.ts";

Deno.test("what every part finds is counted by kind and reported with the part's name", async () => {
  const finds = ["link", "link", "pin"];
  const parts: Audited[] = [
    {
      name: "shop/web",
      inspect: () => finds.splice(0).map((kind) => ({ kind, what: "was gone" })),
    },
    {
      name: "peers",
      inspect: (full) => Promise.resolve(full ? [{ kind: "peer", what: "x" }] : []),
    },
  ];
  const audit = new Audit(() => parts);
  const { findings, parts: count } = await audit.run(false);
  deepStrictEqual(findings.map(({ where, kind }) => `${where} ${kind}`), [
    "shop/web link",
    "shop/web link",
    "shop/web pin",
  ]);
  strictEqual(count, 2);
  strictEqual((await audit.run(true)).findings[0]?.kind, "peer");
  strictEqual((await audit.run(false)).findings.length, 0);
  deepStrictEqual(Object.fromEntries(audit.repairs), { link: 2, pin: 1, peer: 1 });
  audit.stop();
});

Deno.test("when it cannot be told what there is to look at, that is a finding, and no end of the agent", async () => {
  const audit = new Audit(() => {
    throw new Error("EMFILE");
  });
  match((await audit.run(false)).findings[0]?.what ?? "", /it cannot be looked at: Error: EMFILE/);
  audit.stop();
});

Deno.test("a part that cannot be looked at is a finding, and the others are looked at", async () => {
  let looked = 0;
  const audit = new Audit(() => [
    {
      name: "a",
      inspect: () => {
        throw new Error("EMFILE");
      },
    },
    { name: "b", inspect: () => Promise.reject(new Error("ENOMEM")) },
    {
      name: "c",
      inspect: () => {
        looked++;
        return [];
      },
    },
  ]);
  const { findings } = await audit.run(false);
  deepStrictEqual(findings.map(({ where, kind }) => [where, kind]), [["a", "unknown"], [
    "b",
    "unknown",
  ]]);
  match(findings[0]?.what ?? "", /EMFILE/);
  strictEqual(looked, 1);
  audit.stop();
});

Deno.test("it looks again by itself, sooner when something was found", async () => {
  let looks = 0;
  const second = Promise.withResolvers<void>();
  const audit = new Audit(() => [{
    name: "a",
    inspect: () => {
      if (++looks === 2) second.resolve();
      return [{ kind: "link", what: "is gone again" }];
    },
  }]);
  const begun = performance.now();
  await audit.run(false);
  await second.promise;
  audit.stop();
  strictEqual(performance.now() - begun < 4_000, true);
});
