import { lstatSync } from "node:fs";
import { StateDirectory } from "../kernel/state_directory.ts";
import { isBpfFileSystem } from "../native/file_system.ts";
import { nameOf } from "../operate/charge.ts";
import { type Options, textOption } from "./command_line.ts";

/** `kube-gateway cleanup`: for a node whose agent is gone for good. Repeating it is no error. */
export function cleanupCommand(options: Options): void {
  const directory = textOption(options, "state-dir");
  // Not existsSync, for which what may not be looked at does not exist.
  if (lstatSync(directory, { throwIfNoEntry: false }) === undefined) {
    console.log(`nothing to clean up: ${directory} does not exist`);
    return;
  }
  if (!isBpfFileSystem(directory)) {
    console.log(`nothing to clean up: ${directory} is on no bpffs`);
    return;
  }
  using state = new StateDirectory(directory);
  const holder = state.take();
  if (holder !== undefined) {
    throw new Error(
      `${
        nameOf(holder)
      } has ${directory}, and would not notice that its pods are detached: stop that agent ` +
        "first. In Kubernetes the DaemonSet starts it again: label the node so that its nodeSelector or " +
        "affinity passes it by, or remove the gateway with kubectl delete --filename daemonset/",
    );
  }
  const pods = state.remove();
  console.log(`detached ${pods} ${pods === 1 ? "pod" : "pods"} and removed ${directory}`);
}
