/**
 * The promise: one pod's connections cannot take what the agent's memory is for, nor keep other
 * pods from theirs.
 */
import assert from "node:assert/strict";
import { until } from "./lab/delay.ts";
import type { Lab } from "./lab/lab.ts";
import type { Pod } from "./lab/pod.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";

const PORT = 9000;
/**
 * Of the agent with the limit: 100 for each of its two workers, 50 of them for a pod, or for a
 * namespace beside another.
 */
const MOST = 200;
const OF_A_POD = 100;

Deno.test("who opens too many connections is refused more, at either end; other pods go on", async (t) => {
  await using lab = await openScene([
    ...WEB_AND_API,
    { name: "other", node: "node-a", annotation: "true" },
    { name: "bank", node: "node-a", annotation: "true", namespace: "bank" },
  ]);
  const [web, api, other] = [lab.pod("web"), lab.pod("api"), lab.pod("other")];
  for (const server of [api, web]) await server.serve("echo", PORT);
  await lab.agent("node-a").stop();
  await lab.startAgent("node-a", { args: ["--max-connections", `${MOST}`] });
  for (const pod of [web, other, lab.pod("bank")]) await lab.waitEnrolled(pod);

  await t.step("outbound", () => tooMany(lab, web, api, other));
  await t.step("inbound", () => tooMany(lab, api, web, other));
  await t.step("two pods of one owner", () => tooManyOfOne(lab, [web, other], api));
});

/**
 * All that `from`, the pods of one namespace, may open to `to`; a pod of another namespace talks to
 * it all the same.
 */
async function tooManyOfOne(lab: Lab, from: Pod[], to: Pod): Promise<void> {
  const crowds = from.map((pod) => flood(pod, to));
  const there = await Promise.all(crowds.map(opened));
  const all = there.reduce((sum, open) => sum + open, 0);
  assert.ok(all > MOST / 4 && all <= MOST / 2, `${there} are open`);
  const bank = lab.pod("bank");
  for (let count = 0; count < 10; count++) {
    assert.equal((await bank.connect("echo", to.ipv4!, PORT)).code, 0, "a pod of another's");
  }
  for (const crowd of crowds) await crowd.stop("SIGKILL");
}

function flood(from: Pod, to: Pod) {
  return from.spawn([
    ...["python3", "-B", "-S", `${import.meta.dirname}/lab/apps/flood.py`, "--until", "tcp"],
    ...["--host", to.ipv4!, "--port", `${PORT}`],
    ...["--connections", `${2 * MOST}`, "--deadline", "60"],
  ]);
}

async function opened(crowd: ReturnType<typeof flood>): Promise<number> {
  const { open } = await crowd.waitForEvent(({ event }) => event === "there", 30_000);
  return Number(open);
}

/**
 * `from` opens too many to `to`; one of the two is on node-a, as is `other`, who talks to api
 * meanwhile.
 */
async function tooMany(lab: Lab, from: Pod, to: Pod, other: Pod): Promise<void> {
  const talks = async (client: Pod, server: Pod) =>
    (await client.connect("echo", server.ipv4!, PORT)).code === 0;
  const crowd = flood(from, to);
  const open = await opened(crowd);
  assert.ok(open > OF_A_POD / 2 && open <= OF_A_POD, `${open} are open`);
  assert.equal(await talks(from, to), false, "one more");
  assert.equal(await talks(other, lab.pod("api")), true, "another pod of the node");
  const { enrolments } = await lab.agent("node-a").status();
  const refused = enrolments.map(({ traffic }) => traffic?.refused.too_many_connections ?? 0);
  assert.ok(Math.max(...refused) >= MOST, `${refused}`);

  await crowd.stop("SIGKILL");
  await until(() => talks(from, to), 10_000, () => "still refused");
}
