/** Reads what the tools and the kernel print. All pure. */
import * as v from "valibot";

const IPERF = v.union([
  v.object({ error: v.string() }),
  v.object({
    end: v.object({
      sum_received: v.object({ bytes: v.number(), bits_per_second: v.number() }),
    }),
  }),
]);

/** `iperf3 --json`: what arrived. @throws {Error} with iperf3's own when it has one. */
export function parseIperf(output: string): { gigabytes: number; gigabitsPerSecond: number } {
  const result = v.parse(IPERF, parseJson(output, "iperf3"));
  if ("error" in result) throw new Error(`iperf3: ${result.error}`);
  const { bytes, bits_per_second } = result.end.sum_received;
  return { gigabytes: bytes / 1e9, gigabitsPerSecond: bits_per_second / 1e9 };
}

/**
 * wrk's requests per second. @throws {Error} when there were none, or more than one in a hundred
 * failed.
 */
export function parseWrk(output: string): number {
  const rate = Number(/Requests\/sec:\s+([\d.]+)/.exec(output)?.[1] ?? NaN);
  const requests = Number(/(\d+) requests in/.exec(output)?.[1] ?? NaN);
  if (!(rate > 0) || !(requests > 0)) throw new Error(`wrk had no answer: ${output.trim()}`);
  const [, ...errors] = /errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/
    .exec(output) ?? [];
  const failed = errors.reduce((sum, count) => sum + Number(count), 0) +
    Number(/Non-2xx or 3xx responses: (\d+)/.exec(output)?.[1] ?? 0);
  if (failed > requests / 100) throw new Error(`wrk: ${failed} failed, ${requests} did not`);
  return rate;
}

/** The last JSON object that a program of apps/ printed; each of its entries a number. */
export function parseReport(output: string): Record<string, number> {
  const line = output.split("\n").findLast((each) => each.startsWith("{"));
  if (line === undefined) throw new Error(`no report: ${output.trim() || "no output"}`);
  return v.parse(v.record(v.string(), v.number()), parseJson(line, "the client"));
}

/** Seconds that all processors were not idle since boot: proc_stat(5), counted in hundredths. */
export function parseBusySeconds(stat: string): number {
  const [line = ""] = stat.split("\n");
  const [user, nice, system, , , irq, softirq, steal] = line.split(/\s+/).slice(1).map(Number);
  const busy = [user, nice, system, irq, softirq, steal];
  return busy.reduce<number>((sum, ticks) => sum + (ticks ?? 0), 0) / 100;
}

/** Seconds of a control group: its cpu.stat. */
export function parseCpuStat(stat: string): number {
  return Number(/^usage_usec (\d+)$/m.exec(stat)?.[1] ?? NaN) / 1e6;
}

/** Kilobytes (of 1000) that a process has resident: its /proc/PID/status. */
export function parseResident(status: string): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? NaN) * 1.024;
}

function parseJson(text: string, whose: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new Error(`${whose} printed no JSON: ${text.trim().slice(0, 200) || "nothing"}`, {
      cause,
    });
  }
}
