import { existsSync } from "node:fs";
import { removeState } from "../kernel/redirector.ts";
import { type Options, textOption } from "./command_line.ts";

/** `kube-gateway cleanup`: for a node whose agent is gone for good. Repeating it is no error. */
export function cleanupCommand(options: Options): void {
  const directory = textOption(options, "state-dir");
  if (!existsSync(directory)) {
    console.log(`nothing to clean up: ${directory} does not exist`);
    return;
  }
  const pods = removeState(directory);
  console.log(`detached ${pods} ${pods === 1 ? "pod" : "pods"} and removed ${directory}`);
}
