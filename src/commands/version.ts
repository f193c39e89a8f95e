import { fileURLToPath } from "node:url";
import { printable } from "../error_text.ts";
import type { Options } from "./command_line.ts";

/** The release, as the image's tag and CHANGELOG.md have it. */
export const VERSION = "0.1.0";

/** `kube-gateway version`: the release and the commit, to be named in reports. */
export async function versionCommand(options: Options): Promise<void> {
  const commit = await commitOf(fileURLToPath(new URL("../../", import.meta.url)));
  console.log(
    options.json === true
      ? JSON.stringify({ version: VERSION, commit })
      : `kube-gateway ${VERSION} (commit ${commit})`,
  );
}

/**
 * The commit of the code in `root`: what the image's build has written to `build/commit`, else what
 * git says of the sources, with `-dirty` when they are not as committed; `unknown` when neither
 * knows.
 */
export async function commitOf(root: string): Promise<string> {
  const text = await Deno.readTextFile(`${root}/build/commit`).catch(() => gitCommit(root));
  return printable(text.trim()).slice(0, 64) || "unknown";
}

async function gitCommit(root: string): Promise<string> {
  try {
    const { success, stdout } = await new Deno.Command("git", {
      args: ["-C", root, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
      // Not the commit of a repository around an installed copy.
      env: { GIT_CEILING_DIRECTORIES: `${root}/..` },
      stderr: "null",
    }).output();
    return success ? new TextDecoder().decode(stdout) : "";
  } catch {
    return ""; // there is no git here
  }
}
