/** The promise: connections that have ended cost nothing. */
import assert from "node:assert/strict";
import { until } from "./lab/delay.ts";
import { mapKeys } from "./lab/kernel.ts";
import { openScene } from "./lab/scene.ts";
import { settled, type Usage, usage } from "./lab/usage.ts";

const BATCH = 2_500;
/** How far a figure may be from where it was, and still count as being there. */
const TOLERANCE = 0.05;

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
  // Warm: buffers, compiled code, and a heap that has found its size.
  for (const host of [...api.addresses, ...api.addresses]) await batch(host);
  const before = await Promise.all(agents.map(settled));
  for (const host of [...api.addresses, ...api.addresses]) await batch(host);

  const isBack = (now: Usage, then: Usage) =>
    now.descriptors <= then.descriptors * (1 + TOLERANCE) &&
    now.sockets <= then.sockets * (1 + TOLERANCE) &&
    now.memory <= then.memory * (1 + TOLERANCE);
  const after = () => Promise.all(agents.map((agent) => usage(agent)));
  let last: Usage[] = [];
  await until(
    async () => (last = await after()).every((now, index) => isBack(now, before[index]!)),
    60_000, // the memory of ended connections goes when V8 collects
    () => `before ${JSON.stringify(before)}, after ${JSON.stringify(last)}`,
  );
  for (const { name } of lab.nodes) {
    for (const map of ["flows", "origins"]) {
      assert.deepEqual(await mapKeys(`${lab.bpffs}/${name}`, map), [], `${map} of ${name}`);
    }
  }
});
