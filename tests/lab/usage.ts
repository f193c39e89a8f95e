/** What a process costs, as the kernel counts it. */
import type { Agent } from "./agent.ts";
import { until } from "./delay.ts";

export interface Usage {
  descriptors: number;
  sockets: number;
  /** VmRSS in KiB. */
  memory: number;
}

export async function usage({ pid }: { pid: number }): Promise<Usage> {
  let descriptors = 0;
  let sockets = 0;
  for await (const { name } of Deno.readDir(`/proc/${pid}/fd`)) {
    descriptors++;
    // Closed between the two calls: then it is none.
    const target = await Deno.readLink(`/proc/${pid}/fd/${name}`).catch(() => "");
    if (target.startsWith("socket:")) sockets++;
  }
  return { descriptors, sockets, memory: residentKilobytes(pid) };
}

/** VmRSS (proc(5)). */
export function residentKilobytes(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]);
}

/** VmHWM (proc(5)): the most that it has had resident. */
export function peakKilobytes(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]);
}

/** User and system time so far (proc(5), fields 14 and 15 of stat, in ticks of 10 ms). */
export function cpuSeconds(pid: number): number {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** The usage once no stream is open. */
export async function settled(agent: Agent): Promise<Usage> {
  await until(
    async () =>
      (await agent.status()).enrolments.every(({ traffic }) => traffic?.streamsOpen === 0),
    10_000,
    () => "streams are still open",
  );
  return await usage(agent);
}

/**
 * The usage once no tunnel is open either: those that streams have left behind close after 10 s.
 */
export async function quiet(agent: Agent): Promise<Usage> {
  await until(
    async () =>
      (await agent.status()).enrolments.every(({ traffic }) => traffic?.tunnelsOpen === 0),
    30_000,
    () => "tunnels are still open",
  );
  return await usage(agent);
}

/**
 * Waits until the agents have no more than they had: the very descriptors, and the memory within a
 * twentieth and `spareKilobytes`.
 */
export async function isBack(
  agents: readonly Agent[],
  before: readonly Usage[],
  spareKilobytes: number,
): Promise<void> {
  let now: Usage[] = [];
  await until(
    async () => {
      now = await Promise.all(agents.map((agent) => usage(agent)));
      return now.every(({ descriptors, sockets, memory }, index) => {
        const then = before[index]!;
        return descriptors <= then.descriptors && sockets <= then.sockets &&
          memory <= then.memory * 1.05 + spareKilobytes;
      });
    },
    60_000, // the memory of what has ended goes when V8 collects
    () => `before ${JSON.stringify(before)}, after ${JSON.stringify(now)}`,
  );
}
