/**
 * The promise: between enrolled pods nothing is readable on any link, and only the tunnel port is
 * used.
 */
import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import type { Capture, CaptureResult } from "./lab/capture.ts";
import type { Lab } from "./lab/lab.ts";
import type { Pod } from "./lab/pod.ts";
import { openScene } from "./lab/scene.ts";

const CANARY = "canary-5d2c81-canary";
const PORT = 9000;

for (const nodes of [["node-a", "node-b"], ["node-a", "node-a"]] as const) {
  const where = nodes[0] === nodes[1] ? "on one node" : "between two nodes";

  Deno.test(`${where}, no byte of a conversation is readable and only the tunnel port is used`, async (t) => {
    await using lab = await openScene([
      { name: "web", node: nodes[0] },
      { name: "api", node: nodes[1] },
    ]);
    const [web, api] = [lab.pod("web"), lab.pod("api")];
    await api.serve("banner", PORT, "--text", CANARY);

    await t.step("the detector sees the canary before the pods are annotated", async () => {
      for (const capture of await captured(lab, web, api)) {
        assert.ok(capture.contains(CANARY) >= 9, `saw it ${capture.contains(CANARY)} times`);
        assert.ok(capture.isOnlyPort(PORT));
        assert.equal(capture.dropped, 0);
      }
    });

    await t.step(
      "enrolled, there is none, and every connection is to the tunnel port",
      async () => {
        await web.annotate("true");
        await api.annotate("true");
        await Promise.all([lab.waitEnrolled(web), lab.waitEnrolled(api)]);
        for (const capture of await captured(lab, web, api)) {
          assert.equal(capture.contains(CANARY), 0);
          assert.ok(capture.isOnlyPort(TUNNEL_PORT));
          assert.equal(capture.dropped, 0);
          const carried = capture.packets.reduce((sum, { payload }) => sum + payload.length, 0);
          assert.ok(carried > 3 * 3 * CANARY.length, "the conversation did pass here");
        }
      },
    );
  });
}

/** Captures, on every link between the two, a conversation in which both sides say the canary. */
async function captured(lab: Lab, web: Pod, api: Pod): Promise<CaptureResult[]> {
  const captures: Capture[] = [await lab.captureVeth(web), await lab.captureVeth(api)];
  if (web.node !== api.node) {
    captures.push(await lab.captureNodeLink("node-a"), await lab.captureNodeLink("node-b"));
  }
  const conversations = [[api.ipv4!], [api.ipv6!], [api.ipv4!, "--mapped"]] as const;
  for (const [host, ...more] of conversations) {
    const { result } = await web.connect("echo", host, PORT, "--banner", "--text", CANARY, ...more);
    assert.deepEqual([result.banner, result.reply], [CANARY, CANARY]);
  }
  return await Promise.all(captures.map((capture) => capture.stop()));
}
