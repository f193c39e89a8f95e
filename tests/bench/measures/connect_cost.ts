import { attachedPrograms } from "../../lab/kernel.ts";
import { dialLocally } from "../applications.ts";
import type { Measure } from "../model.ts";

/** What connect() to something that is no peer costs: for a pod, programs look it up. */
export const CONNECT_COST: Measure = {
  figures: [{
    key: "microseconds",
    name: "connect() to a non-peer, in an enrolled pod and outside all pods (direct)",
    unit: "µs",
    better: "less",
    baseline: "direct",
  }],
  passes: 20,
  absent: ({ name }) => name === "direct" || name === "gateway" ? undefined : "–",
  async run({ name, client }) {
    // Above all pods are programs, too.
    const [place, cgroup] = name === "direct"
      ? [client.node, client.node.processCgroup]
      : [client, client.cgroup];
    const isAttached = (await attachedPrograms(cgroup)).includes("connect4");
    if (isAttached !== (name === "gateway")) {
      throw new Error(`${client.name} has ${isAttached ? "a" : "no"} program at its connect()`);
    }
    const { median = NaN } = await dialLocally(place, 3_000);
    return { microseconds: median / 1000 };
  },
};
