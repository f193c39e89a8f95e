import { delay } from "./delay.ts";

/** Where cgroup v2 is mounted: not at /sys/fs/cgroup itself on a hybrid machine. */
export function cgroupMount(): string {
  for (const line of Deno.readTextFileSync("/proc/self/mountinfo").split("\n")) {
    // mountinfo: id parent major:minor root MOUNTPOINT options … - TYPE source options
    const [front, back] = line.split(" - ");
    const mountPoint = front?.split(" ")[4];
    if (mountPoint !== undefined && back?.startsWith("cgroup2 ")) return mountPoint;
  }
  throw new Error("Cannot find cgroup v2: /proc/self/mountinfo lists no cgroup2 mount");
}

export type Layout = "cgroupfs" | "systemd";
export type QosClass = "guaranteed" | "burstable" | "besteffort";

/** The directories that kubelet makes when it starts, below the node's cgroup root. */
export const KUBELET_DIRECTORIES: readonly string[] = [
  "kubepods/burstable",
  "kubepods/besteffort",
  "kubepods.slice/kubepods-burstable.slice",
  "kubepods.slice/kubepods-besteffort.slice",
];

/** A pod's cgroup below the node's root, as kubelet's cgroup driver would name it. */
export function podCgroup(layout: Layout, qos: QosClass, uid: string): string {
  const guaranteed = qos === "guaranteed";
  if (layout === "cgroupfs") {
    return guaranteed ? `kubepods/pod${uid}` : `kubepods/${qos}/pod${uid}`;
  }
  const name = uid.replaceAll("-", "_");
  return guaranteed
    ? `kubepods.slice/kubepods-pod${name}.slice`
    : `kubepods.slice/kubepods-${qos}.slice/kubepods-${qos}-pod${name}.slice`;
}

/** A container's cgroup below its pod's; `id` is the container runtime's 64 hex digits. */
export function containerCgroup(layout: Layout, id: string): string {
  return layout === "cgroupfs" ? id : `cri-containerd-${id}.scope`;
}

/** Kills every process below `directory` and removes it; one that is gone already is fine. */
export async function removeCgroup(directory: string): Promise<void> {
  for (let attempt = 0;; attempt++) {
    try {
      // cgroup.kill (Linux 5.14) also catches processes that are forking at this moment.
      await Deno.writeTextFile(`${directory}/cgroup.kill`, "1", { create: false });
      await removeTree(directory);
      return;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      // EBUSY until the last process has really gone.
      if (attempt === 500) {
        throw new Error(`Cannot remove the cgroup ${directory}`, { cause: error });
      }
      await delay(10);
    }
  }
}

// A plain recursive remove would try to unlink cgroupfs's own files, which the kernel forbids.
async function removeTree(directory: string): Promise<void> {
  for await (const entry of Deno.readDir(directory)) {
    if (entry.isDirectory) await removeTree(`${directory}/${entry.name}`);
  }
  await Deno.remove(directory);
}
