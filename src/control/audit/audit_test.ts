import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { configure, reset } from "@logtape/logtape";
import { EMFILE, SystemError } from "../../native/errno.ts";
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
  match((await audit.run(false)).findings[0]?.what ?? "", /^it cannot be looked at: EMFILE$/);
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
  strictEqual(performance.now() - begun < 4_000, true);
  audit.stop();
  await audit.run(false); // after the one that is under way
});

Deno.test("one audit at a time, however many ask for one, and each gets one of its own", async () => {
  let [now, most, looks] = [0, 0, 0];
  const audit = new Audit(() => [{
    name: "a",
    inspect: async () => {
      most = Math.max(most, ++now);
      looks++;
      await new Promise((resolve) => setTimeout(resolve, 1));
      now--;
      return [];
    },
  }]);
  await Promise.all([audit.run(false), audit.run(true), audit.run(true), audit.run(false)]);
  deepStrictEqual([most, looks], [1, 4]);
  audit.stop();
});

Deno.test("every part is looked at once, sixteen at the same time at most, and what it counts is counted", async () => {
  let [now, most] = [0, 0];
  const looked: number[] = [];
  const audit = new Audit(() =>
    Array.from({ length: 40 }, (_, index) => ({
      name: `${index}`,
      inspect: async () => {
        most = Math.max(most, ++now);
        looked.push(index);
        await Promise.resolve();
        now--;
        return index === 39 ? [{ kind: "peer", what: "missing", count: 3 }] : [];
      },
    }))
  );
  const { parts, findings } = await audit.run(false);
  deepStrictEqual([parts, findings.length, most], [40, 1, 16]);
  deepStrictEqual(looked, Array.from({ length: 40 }, (_, index) => index));
  strictEqual(audit.repairs.get("peer"), 3);
  audit.stop();
});

Deno.test(
  "one that is stopped while it is under way is the last",
  { sanitizeOps: true },
  async () => {
    const audit = new Audit(() => []);
    audit.start();
    await audit.run(false);
    const last = audit.run(false);
    audit.stop();
    await last;
    audit.start();
    strictEqual(audit.last?.parts, 0);
  },
);

Deno.test("why parts cannot be looked at is said once for all of them, and what lasts once a minute", async () => {
  const lines: string[] = [];
  await configure({
    sinks: { lines: (record) => void lines.push(`${record.properties.where}`) },
    loggers: [
      { category: "kube-gateway", sinks: ["lines"] },
      { category: ["logtape", "meta"], lowestLevel: "error" },
    ],
    reset: true,
  });
  let now = 0;
  let found = ["gone"];
  const lacks = (name: string): Audited => ({
    name,
    inspect: () => {
      throw new SystemError("bpf_obj_get", EMFILE, `/sys/fs/bpf/${name}`);
    },
  });
  const mended = { name: "c", inspect: () => found.map((what) => ({ kind: "pin", what })) };
  const audit = new Audit(() => [lacks("a"), lacks("b"), mended], () => now);
  try {
    const { findings } = await audit.run(false);
    deepStrictEqual(
      findings.filter(({ kind }) => kind === "unknown").map(({ what }) => what.slice(0, 30)),
      Array(2).fill("it cannot be looked at: EMFILE"),
    );
    deepStrictEqual(lines.splice(0), ["a and 1 more", "c"]);
    now += 59_999;
    await audit.run(false);
    deepStrictEqual(lines, [], "nothing has changed");
    now += 1;
    await audit.run(false);
    deepStrictEqual(lines.splice(0), ["a and 1 more", "c"]);
    found = [];
    await audit.run(false);
    found = ["gone"];
    await audit.run(false);
    deepStrictEqual(lines, ["c"], "it was there in between");
  } finally {
    audit.stop();
    await reset();
  }
});
