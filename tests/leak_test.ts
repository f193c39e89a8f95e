/** The promise: connections that have ended cost nothing. */
import assert from "node:assert/strict";
import type { Agent } from "./lab/agent.ts";
import { delay } from "./lab/delay.ts";
import { mapKeys } from "./lab/kernel.ts";
import { openScene } from "./lab/scene.ts";
import { settled, type Usage, usage } from "./lab/usage.ts";

const BATCH = 2_500;
/** How far a figure may be from where it was, and still count as being there. */
const TOLERANCE = 0.05;
/** In so many rounds in a row only a leak grows beyond that. */
const ROUNDS = 4;

Deno.test("10,000 connections later the agents have the descriptors and the memory of before", async () => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  const agents = lab.nodes.map(({ name }) => lab.agent(name));
  await api.serve("echo", 9000);
  const batch = async (host: string) => {
    const many = ["--connections", `${BATCH}`, "--concurrency", "50"];
    const { result } = await web.connect("many", host, 9000, ...many);
    assert.deepEqual([result.ok, result.errors], [BATCH, {}]);
  };
  const round = async () => {
    for (const host of [...api.addresses, ...api.addresses]) await batch(host);
    return await Promise.all(agents.map(settled));
  };
  let before = await round(); // warm: buffers, compiled code
  // A heap that finds another size has it, while one that leaks grows again.
  for (let rounds = 1;; rounds++) {
    await round();
    const after = await lowest(agents, before);
    const said = `before ${JSON.stringify(before)}, after ${JSON.stringify(after)}`;
    assert(after.every((now, index) => isBack(now, before[index], "descriptors")), said);
    assert(after.every((now, index) => isBack(now, before[index], "sockets")), said);
    if (after.every((now, index) => isBack(now, before[index], "memory"))) break;
    assert(rounds < ROUNDS, said);
    before = after;
  }
  for (const { name } of lab.nodes) {
    for (const map of ["flows", "origins"]) {
      assert.deepEqual(await mapKeys(`${lab.bpffs}/${name}`, map), [], `${map} of ${name}`);
    }
  }
});

function isBack(now: Usage, then: Usage | undefined, what: keyof Usage): boolean {
  return now[what] <= (then?.[what] ?? 0) * (1 + TOLERANCE);
}

/**
 * What they have once they have no more than `before`, or after a while: ended connections' memory
 * goes when V8 collects.
 */
async function lowest(agents: readonly Agent[], before: readonly Usage[]): Promise<Usage[]> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const now = await Promise.all(agents.map((agent) => usage(agent)));
    const kinds = ["descriptors", "sockets", "memory"] as const;
    const isAll = now.every((each, index) =>
      kinds.every((kind) => isBack(each, before[index], kind))
    );
    if (isAll || Date.now() > deadline) return now;
    await delay(500);
  }
}
