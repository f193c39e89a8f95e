import { readdirSync, readFileSync } from "node:fs";

/** Deeper than any layout in use: kind in Docker nests kubelet's tree below three more levels. */
const MAX_DEPTH = 12;

/**
 * The mount point of cgroup v2, also where it lies beside v1 (`…/unified`). Throws an Error when there is none.
 */
export function cgroup2Mount(mountInfo: string): string {
  for (const line of mountInfo.split("\n")) {
    // proc(5): id parent major:minor root MOUNTPOINT options… - TYPE source options
    const [front, back] = line.split(" - ");
    const mountPoint = front?.split(" ")[4];
    if (mountPoint !== undefined && back?.startsWith("cgroup2 ")) return mountPoint;
  }
  throw new Error("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup");
}

/**
 * The cgroups of pods below `root`, by pod UID: one walk for all of them. Kubelet's names are `pod<uid>` with
 * the cgroupfs driver and `kubepods[-<class>]-pod<uid with underscores>.slice` with systemd's.
 */
export function findPodCgroups(root: string): Map<string, string> {
  const found = new Map<string, string>();
  walk(root, 0, (directory, name) => {
    const uid = podUidOf(name);
    if (uid === undefined) return true;
    found.set(uid, directory);
    return false;
  });
  return found;
}

/**
 * The cgroups below `root` that kubelet keeps all pods in: `kubepods` with the cgroupfs driver, `kubepods.slice` with
 * systemd's, with its own root's name in front where it has one (`kubelet-kubepods.slice` in kind).
 */
export function findKubepods(root: string): string[] {
  const found: string[] = [];
  walk(root, 0, (directory, name) => {
    if (!/^([a-z0-9-]+-)?kubepods(\.slice)?$/.test(name)) return podUidOf(name) === undefined;
    found.push(directory);
    return false;
  });
  return found;
}

/** The UID in a pod cgroup's name, with dashes, or undefined for another name. */
export function podUidOf(name: string): string | undefined {
  const cgroupfs = /^pod([A-Za-z0-9.-]+)$/.exec(name);
  if (cgroupfs !== null) return cgroupfs[1];
  const systemd = /^[a-z0-9-]+-pod([A-Za-z0-9_.]+)\.slice$/.exec(name);
  return systemd?.[1]?.replaceAll("_", "-");
}

/** Every process in a cgroup and below it. */
export function processesOf(cgroup: string): number[] {
  const pids: number[] = [];
  const read = (directory: string) => {
    for (const line of readLines(`${directory}/cgroup.procs`)) pids.push(Number(line));
  };
  read(cgroup);
  walk(cgroup, 0, (directory) => {
    read(directory);
    return true;
  });
  return pids;
}

/** Visits the directories below `directory`; `visit` says whether to go deeper. */
function walk(
  directory: string,
  depth: number,
  visit: (directory: string, name: string) => boolean,
): void {
  if (depth === MAX_DEPTH) return;
  for (const name of directoriesIn(directory)) {
    const path = `${directory}/${name}`;
    if (visit(path, name)) walk(path, depth + 1, visit);
  }
}

function directoriesIn(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
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
