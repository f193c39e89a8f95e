/**
 * The cgroups that kubelet made. Nothing else counts as a pod's: whoever has a cgroup delegated to
 * him (every login session has one) can make a directory of any name below it, so a name alone says
 * nothing. What counts is a directory of root, at one of the levels where kubelet puts its own,
 * below directories of root only.
 */
import { readdirSync, statSync } from "node:fs";

/** Kubelet's tree, as it is now. */
export interface Kubepods {
  /**
   * The cgroups that kubelet keeps all pods in, those of the two lesser QoS classes below them left
   * out.
   */
  readonly tops: readonly string[];
  /** Where pods' cgroups lie: the tops and their QoS classes. */
  readonly parents: readonly string[];
}

/**
 * Finds `kubepods` (cgroupfs driver) and `kubepods.slice` (systemd's), with kubelet's own root's
 * name in front where it has one (`kubelet-kubepods.slice` in kind). The level nearest to `root`
 * that has one is kubelet's; what lies deeper is another cluster's, inside of a pod or a container.
 *
 * @param owner the user who must own every directory on the way; another one only in tests.
 */
export function findKubepods(root: string, owner = 0): Kubepods {
  let level = [root];
  for (let depth = 0; depth < MAX_LEVELS && level.length > 0; depth++) {
    const below = level.flatMap((directory) => directoriesOf(directory, owner));
    const tops = below.filter((directory) => KUBEPODS.test(nameOf(directory)));
    if (tops.length > 0) {
      return { tops, parents: tops.flatMap((top) => [top, ...qosOf(top, owner)]) };
    }
    level = below.filter((directory) => !NEVER_KUBELETS.test(nameOf(directory)))
      .slice(0, MAX_DIRECTORIES);
  }
  return { tops: [], parents: [] };
}

/**
 * The pods' cgroups, by UID: almost always one. A second one is a mistake, or somebody's attempt.
 */
export function findPodCgroups({ parents }: Kubepods, owner = 0): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const parent of parents) {
    for (const cgroup of directoriesOf(parent, owner)) {
      const uid = podUidOf(cgroup);
      if (uid !== undefined) found.set(uid, [...found.get(uid) ?? [], cgroup]);
    }
  }
  return found;
}

/**
 * Whether a directory that was just made may be a pod's cgroup: kubelet's parent, root's, and the
 * right name.
 */
export function isPodCgroup(cgroup: string, { parents }: Kubepods, owner = 0): boolean {
  const parent = cgroup.slice(0, cgroup.lastIndexOf("/"));
  return parents.includes(parent) && podUidOf(cgroup) !== undefined && isOwned(cgroup, owner);
}

/**
 * The UID in the path of a pod's cgroup, with dashes, or undefined for another path: `…/pod<uid>`
 * with the cgroupfs driver, `…/<slice>.slice/<slice>-pod<uid with underscores>.slice` with
 * systemd's.
 */
export function podUidOf(cgroup: string): string | undefined {
  const [parent = "", name = ""] = cgroup.split("/").slice(-2);
  const slice = /^(.+)\.slice$/.exec(parent)?.[1];
  if (slice === undefined) return /^pod([A-Za-z0-9.-]+)$/.exec(name)?.[1];
  const uid = /^([a-z0-9-]+)-pod([A-Za-z0-9_.]+)\.slice$/.exec(name);
  return uid?.[1] === slice ? uid[2]?.replaceAll("_", "-") : undefined;
}

/** The cgroups of the QoS classes Burstable and BestEffort below a top. */
function qosOf(top: string, owner: number): string[] {
  return directoriesOf(top, owner).filter((directory) => QOS_CLASS.test(nameOf(directory)));
}

function directoriesOf(directory: string, owner: number): string[] {
  let names: string[];
  try {
    names = readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  } catch (error) {
    // Cgroups come and go while they are looked at.
    if (["ENOENT", "ENODEV"].includes((error as NodeJS.ErrnoException).code ?? "")) return [];
    throw error;
  }
  return names.map((name) => `${directory}/${name}`).filter((path) => isOwned(path, owner));
}

/** Whether nobody but `owner` can make directories in it. */
function isOwned(path: string, owner: number): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat !== undefined && stat.uid === owner && (stat.mode & GROUP_OR_OTHERS_WRITE) === 0;
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

const KUBEPODS = /^([a-z0-9-]+-)?kubepods(\.slice)?$/;
const QOS_CLASS = /^([a-z0-9-]+-)?(burstable|besteffort)(\.slice)?$/;

/** Slices and units that kubelet is never below. */
const NEVER_KUBELETS = /^user\.slice$|\.service$|\.socket$|\.mount$|^init\.scope$/;

/**
 * Kind in Docker nests kubelet's tree below three more levels:
 * system.slice/docker-1.scope/kubelet.slice.
 */
const MAX_LEVELS = 4;
const MAX_DIRECTORIES = 1_000;
const GROUP_OR_OTHERS_WRITE = 0o022;
