/**
 * The mount point of cgroup v2, also where it lies beside v1 (`…/unified`). Throws an Error when
 * there is none.
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
