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
  async run({ client }) {
    const { median = NaN } = await dialLocally(client, 3_000);
    return { microseconds: median / 1000 };
  },
};
