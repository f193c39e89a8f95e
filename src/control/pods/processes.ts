import { readdirSync, readFileSync } from "node:fs";

/**
 * The processes in a cgroup and below it, level by level: the runtime's own cgroups first. Bounded,
 * since a pod that may write its own cgroup could make more below it than could ever be read.
 */
export function processesOf(cgroup: string): number[] {
  const pids: number[] = [];
  let level = [cgroup];
  for (let visited = 0; level.length > 0; level = level.flatMap(directoriesIn)) {
    level = level.slice(0, MAX_CGROUPS - visited);
    visited += level.length;
    for (const directory of level) {
      for (const line of readLines(`${directory}/cgroup.procs`)) {
        if (pids.length < MAX_PROCESSES) pids.push(Number(line));
      }
    }
  }
  return pids;
}

function directoriesIn(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => `${directory}/${entry.name}`);
  } catch (error) {
    if (isGone(error)) return [];
    throw error;
  }
}

function readLines(file: string): string[] {
  try {
    return readFileSync(file, "utf8").split("\n").filter((line) => line !== "");
  } catch (error) {
    // EOPNOTSUPP: a threaded cgroup lists its processes in its domain's file only.
    if (isGone(error) || (error as NodeJS.ErrnoException).code === "EOPNOTSUPP") return [];
    throw error;
  }
}

/** Cgroups come and go while they are looked at. */
function isGone(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return code === "ENOENT" || code === "ENODEV" || code === "ENOTDIR";
}

const MAX_CGROUPS = 256;
const MAX_PROCESSES = 10_000;
