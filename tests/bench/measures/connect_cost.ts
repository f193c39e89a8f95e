import { attachedPrograms } from "../../lab/kernel.ts";
import { dialLocally } from "../applications.ts";
import type { Measure } from "../model.ts";

/** What connect() to something that is no peer costs: in an enrolled pod the program looks it up. */
export const CONNECT_COST: Measure = {
  figures: [{
    key: "microseconds",
    name: "connect() to a non-peer, in an enrolled pod and in another (direct)",
    unit: "µs",
    better: "less",
    baseline: "direct",
  }],
  passes: 20,
  absent: ({ name }) => name === "direct" || name === "gateway" ? undefined : "–",
  async run({ name, client }) {
    const isAttached = (await attachedPrograms(client.cgroup)).includes("connect4");
    if (isAttached !== (name === "gateway")) {
      throw new Error(`${client.name} has ${isAttached ? "a" : "no"} program at its connect()`);
    }
    const { median = NaN } = await dialLocally(client, 3_000);
    return { microseconds: median / 1000 };
  },
};
