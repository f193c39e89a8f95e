import { iperf } from "../applications.ts";
import type { Measure } from "../model.ts";
import { cpuOf } from "../usage.ts";

/** One stream to the server, and what its bytes cost. */
export const BULK_TO_SERVER: Measure = {
  figures: [
    {
      key: "rate",
      name: "bulk, one stream, to the server",
      unit: "Gbit/s",
      better: "more",
    },
    { key: "machine", name: "CPU of the whole machine per GB", unit: "s", better: "less" },
    { key: "proxies", name: "CPU of both proxies per GB", unit: "s", better: "less" },
  ],
  async run(contender, seconds) {
    const { cgroups } = contender;
    const { result, cpu } = await cpuOf(cgroups, () => iperf(contender, seconds));
    const machine = cpu.machine / result.gigabytes;
    const proxies = cpu.proxies / result.gigabytes;
    return { rate: result.gigabitsPerSecond, machine, ...(cgroups.length > 0 ? { proxies } : {}) };
  },
};

export const BULK_TO_CLIENT = bulk("bulk, one stream, to the client", "-R");
export const BULK_EIGHT = bulk("bulk, eight streams, to the server", "-P", "8");

function bulk(name: string, ...options: string[]): Measure {
  return {
    figures: [{ key: "rate", name, unit: "Gbit/s", better: "more" }],
    run: async (contender, seconds) => ({
      rate: (await iperf(contender, seconds, ...options)).gigabitsPerSecond,
    }),
  };
}
