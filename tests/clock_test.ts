/**
 * The promise: a clock that jumps (a suspended machine, the first answer of a time server) costs
 * seconds, whatever it jumps by: certificates are renewed by the clock that verifies them, and
 * nothing goes in clear meanwhile.
 */
import assert from "node:assert/strict";
import { Canary } from "./lab/canary.ts";
import { until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";
import { LeakDetector } from "./lab/leak_detector.ts";

const PORT = 9000;
const CANARY = "canary-clock-canary";
const HOUR = 3_600;
const DAY = 24 * HOUR;

/**
 * Debian's package faketime: the wall clock of a process is what a file says; its monotonic clock
 * stays.
 */
const LIBRARY = `/usr/lib/${
  { x86_64: "x86_64-linux-gnu", aarch64: "aarch64-linux-gnu" }[Deno.build.arch]
}/faketime/libfaketimeMT.so.1`;

Deno.test("the nodes' clocks jump by an hour and by two days, both ways", async (t) => {
  await using lab = await Lab.open();
  const clock = `${lab.temporary}/clock`;
  let offset = 0;
  const jump = async (seconds: number) => {
    offset += seconds;
    // At once: half a number would be another time.
    await Deno.writeTextFile(`${clock}.new`, `${offset < 0 ? "" : "+"}${offset}`);
    await Deno.rename(`${clock}.new`, clock);
  };
  await jump(0);
  const [web, api] = await lab.addPods([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "api", node: "node-b", annotation: "true" },
  ]);
  assert(web && api);
  const env = {
    LD_PRELOAD: LIBRARY,
    FAKETIME_TIMESTAMP_FILE: clock,
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
    FAKETIME_NO_CACHE: "1",
  };
  await Promise.all(
    lab.nodes.map(({ name }) => lab.startAgent(name, { env, args: ["--access-log", "0"] })),
  );
  await api.serve("hello", PORT);
  for (const pod of [web, api]) await lab.waitEnrolled(pod);

  const jumps = [["an hour", HOUR], ["two days", 2 * DAY]] as const;
  for (const [name, seconds] of jumps) {
    for (const [way, sign] of [["forward", 1], ["back", -1]] as const) {
      await t.step(`${name} ${way}`, async () => {
        await using detector = await LeakDetector.start(lab, [web, api]);
        await using canary = new Canary(web, api, PORT, CANARY);
        await canary.answered();
        const before = await certificates(lab);
        await jump(sign * seconds);
        await until(
          async () => {
            const now = Date.now() + offset * 1_000;
            const all = await certificates(lab);
            return all.every(({ notBefore, notAfter }) =>
              Date.parse(notBefore) <= now && now < Date.parse(notAfter)
            );
          },
          60_000,
          () => `a certificate is not good by the new clock: ${lab.logTails()}`,
        );
        await canary.answered(10, 60_000);
        const after = await certificates(lab);
        if (seconds > DAY) assert.notDeepEqual(after, before, "other certificates");
        assert.deepEqual(await detector.stop(CANARY), []);
      });
    }
  }
});

interface Certificate {
  readonly serial: string;
  readonly notBefore: string;
  readonly notAfter: string;
}

async function certificates(lab: Lab): Promise<Certificate[]> {
  const statuses = await Promise.all(lab.nodes.map(({ name }) => lab.agent(name).status()));
  return statuses.flatMap(({ enrolments }) =>
    enrolments.flatMap(({ certificate }) => certificate as Certificate | undefined ?? [])
  );
}
