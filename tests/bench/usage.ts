/** What processes use, asked of the kernel. */
import { parseBusySeconds, parseCpuStat, parseResident } from "./parse.ts";

/** CPU seconds of the whole machine, interrupts included, and of what runs in some cgroups. */
export interface Cpu {
  readonly machine: number;
  readonly proxies: number;
}

/** What `run` costs. */
export async function cpuOf<Result>(
  cgroups: readonly string[],
  run: () => Promise<Result>,
): Promise<{ result: Result; cpu: Cpu }> {
  const before = cpu(cgroups);
  const result = await run();
  const after = cpu(cgroups);
  return {
    result,
    cpu: { machine: after.machine - before.machine, proxies: after.proxies - before.proxies },
  };
}

function cpu(cgroups: readonly string[]): Cpu {
  const seconds = (cgroup: string) => parseCpuStat(Deno.readTextFileSync(`${cgroup}/cpu.stat`));
  return {
    machine: parseBusySeconds(Deno.readTextFileSync("/proc/stat")),
    proxies: cgroups.reduce((sum, cgroup) => sum + seconds(cgroup), 0),
  };
}

/** Kilobytes that the processes in some cgroups have resident, together. */
export function residentKilobytes(cgroups: readonly string[]): number {
  const pids = cgroups.flatMap((cgroup) =>
    Deno.readTextFileSync(`${cgroup}/cgroup.procs`).split("\n").filter(Boolean)
  );
  return pids.reduce(
    (sum, pid) => sum + parseResident(Deno.readTextFileSync(`/proc/${pid}/status`)),
    0,
  );
}
