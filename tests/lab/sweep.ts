import { cgroupMount, removeCgroup } from "./cgroup.ts";
import { removeNamespaces } from "./network.ts";

/** Everything that a lab makes outside its own process carries this prefix and the owner's pid. */
export const PREFIX = "kgw-lab";

export const TEMPORARY_ROOT = Deno.env.get("TMPDIR") ?? "/tmp";

/** Removes what labs left behind whose process was killed before it could close them. */
export async function sweep(): Promise<void> {
  const leftovers = new Set<string>();
  for (const directory of [cgroupMount(), TEMPORARY_ROOT, "/run/netns"]) {
    for (const name of entries(directory)) {
      const [, lab, pid] = name.match(NAME) ?? [];
      if (lab !== undefined && pid !== undefined && !isRunning(pid)) leftovers.add(lab);
    }
  }
  for (const lab of leftovers) await removeTraces(lab);
}

/** Removes a lab's cgroups (with their processes), namespaces, bpffs mount and directory. */
export async function removeTraces(lab: string): Promise<void> {
  await removeCgroup(`${cgroupMount()}/${lab}`);
  await removeNamespaces(entries("/run/netns").filter((name) => name.startsWith(`${lab}-`)));
  const directory = `${TEMPORARY_ROOT}/${lab}`;
  await unmount(`${directory}/bpf`);
  await Deno.remove(directory, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
}

const NAME = /^(kgw-lab-(\d+)-\d+)(?:-|$)/;

// The owner is a Deno process; a stranger that got its pid later, or a zombie, does not count.
function isRunning(pid: string): boolean {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`).includes("deno");
  } catch {
    return false;
  }
}

async function unmount(path: string): Promise<void> {
  const isMounted = () =>
    Deno.readTextFileSync("/proc/self/mountinfo").split("\n")
      .some((line) => line.split(" ")[4] === path);
  // Lazily if something still holds it: the pins go as soon as that lets go.
  for (const options of [[], ["-l"]]) {
    if (!isMounted()) return;
    await new Deno.Command("umount", { args: [...options, path], stderr: "null" }).output();
  }
}

function entries(directory: string): string[] {
  try {
    return [...Deno.readDirSync(directory)].map(({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return []; // No `ip netns add` yet on this machine.
    throw error;
  }
}
