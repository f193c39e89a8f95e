import { rmSync } from "node:fs";
import { BpfLink } from "../native/bpf_object.ts";
import { cgroupId, openDirectory } from "../native/file_system.ts";

/**
 * Attaches a program, an open descriptor, to a cgroup and pins the link as `path`; or, where an earlier agent has
 * pinned one, puts the program in the place of that one's, with no moment between the two.
 *
 * @throws {SystemError}
 */
export function attachPinned(
  program: number,
  attachType: number,
  cgroup: string,
  path: string,
): void {
  using pinned = BpfLink.open(path);
  if (pinned !== undefined) {
    // Else it is another cgroup's that had this name, and the kernel would gladly update what runs no more.
    if (pinned.cgroup() === cgroupId(cgroup)) return pinned.replace(program, cgroup);
    rmSync(path);
  }
  using target = openDirectory(cgroup);
  using link = BpfLink.attach(program, target.descriptor, attachType, cgroup);
  link.pin(path);
}
