import { delay } from "../../lab/delay.ts";
import { echoClient, iperf } from "../applications.ts";
import type { Figure, Measure } from "../model.ts";

const percentile = (key: "p50" | "p99", added = false): Figure => ({
  key,
  name: `64 B request/response, ${added ? `added to direct's ${key}` : key}`,
  unit: "µs",
  better: "less",
  added,
});

/** One connection, one request at a time. */
export const LATENCY: Measure = {
  figures: [
    percentile("p50"),
    percentile("p99"),
    percentile("p50", true),
    percentile("p99", true),
  ],
  run: (contender, seconds) =>
    echoClient(contender, "pingpong", seconds, "--seconds", `${seconds}`),
};

/**
 * The same while a neighbour takes all the bandwidth that the same processes can give. Much depends
 * on which of two threads each connection gets, which is chance: more passes than usual.
 */
export const LATENCY_BESIDE_BULK: Measure = {
  figures: [
    {
      key: "p99",
      name: "64 B p99 beside a neighbour's bulk",
      unit: "µs",
      better: "less",
    },
    { key: "rate", name: "the neighbour's bulk meanwhile", unit: "Gbit/s", better: "more" },
  ],
  passes: 4,
  async run(contender, seconds) {
    const bulk = iperf(contender.neighbour, seconds + 1);
    const answers = (async () => {
      await delay(400); // it has begun
      return await echoClient(contender, "pingpong", seconds, "--seconds", `${seconds}`);
    })();
    // Both end before one's failure is told: nothing may run into the next contender's time.
    await Promise.allSettled([bulk, answers]);
    return { p99: (await answers).p99 ?? NaN, rate: (await bulk).gigabitsPerSecond };
  },
};
