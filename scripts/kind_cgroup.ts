import { cgroup2Mount } from "../src/cgroup_mount.ts";

/**
 * The directory of a kind node's cgroup: that of the container, whose first process is systemd in
 * `init.scope` below it.
 *
 * @param cgroup `/proc/<pid>/cgroup` of the container's first process.
 * @param mountinfo `/proc/self/mountinfo`.
 * @throws {Error} without cgroup v2.
 */
export function kindCgroup(cgroup: string, mountinfo: string): string {
  const [, path] = /^0::(\/.*)$/m.exec(cgroup) ?? [];
  if (path === undefined) throw new Error("the node's container has no cgroup v2");
  return `${cgroup2Mount(mountinfo)}${path.replace(/\/init\.scope$/, "")}`;
}
