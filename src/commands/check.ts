import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { cgroup2Mount } from "../cgroup_mount.ts";
import { errorText } from "../error_text.ts";
import { requireLibrary } from "../native/library.ts";
import { type Options, textOption } from "./command_line.ts";

/** One need of the agent: met, as `found` says, or not, and then what to do. */
interface Check {
  readonly need: string;
  readonly met: boolean;
  readonly found: string;
  readonly todo?: string;
}

/** `kube-gateway check`: whether every need is met. */
export function checkCommand(options: Options): boolean {
  const checks = [
    processor(),
    kernel(),
    capabilities(),
    cgroup2(),
    bpfFileSystem(textOption(options, "state-dir")),
    library("libbpf.so.1", "libbpf 1.x", "install libbpf (Debian: libbpf1)"),
    library("libssl.so.3", "OpenSSL 3", "install OpenSSL 3 (Debian: libssl3 or libssl3t64)"),
    library("libcrypto.so.3", "OpenSSL 3 (libcrypto)", "install OpenSSL 3"),
  ];
  if (options.json === true) {
    console.log(JSON.stringify(checks, null, 2));
  } else {
    for (const { need, met, found, todo } of checks) {
      console.log(`${met ? "ok  " : "MISS"}  ${need}: ${found}${met ? "" : `\n      ${todo}`}`);
    }
  }
  return checks.every(({ met }) => met);
}

/** A need that is met when `ask` returns what was found, and not when it throws. */
function check(need: string, todo: string, ask: () => string): Check {
  try {
    return { need, met: true, found: ask() };
  } catch (error) {
    return {
      need,
      met: false,
      found: errorText(error),
      todo,
    };
  }
}

function processor(): Check {
  return check("processor x86-64 or arm64", "run on one of these", () => {
    if (!["x86_64", "aarch64"].includes(Deno.build.arch)) throw new Error(Deno.build.arch);
    return Deno.build.arch;
  });
}

function kernel(): Check {
  // 5.15: network namespace cookies in sockops programs, lookup-and-delete for hash maps.
  return check("Linux 5.15 or later", "boot a newer kernel", () => {
    const release = Deno.osRelease();
    const [major = 0, minor = 0] = release.split(".").map(Number);
    if (major < 5 || (major === 5 && minor < 15)) throw new Error(release);
    return release;
  });
}

/** Bits of /proc/self/status' CapEff (linux/capability.h), and what each is for. */
const CAPABILITIES: readonly [number, string, string][] = [
  [12, "CAP_NET_ADMIN", "attach programs to cgroups"],
  [19, "CAP_SYS_PTRACE", "find the namespaces of pods' processes"],
  [21, "CAP_SYS_ADMIN", "enter pods' network namespaces, pin on bpffs"],
  [39, "CAP_BPF", "load programs and maps"],
];

function capabilities(): Check {
  return check("capabilities", "run as root, privileged, or with these added", () => {
    const line = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"));
    const effective = BigInt(`0x${line?.[1] ?? "0"}`);
    const missing = CAPABILITIES.filter(([bit]) => (effective >> BigInt(bit) & 1n) === 0n);
    if (missing.length > 0) {
      throw new Error(missing.map(([, name, why]) => `no ${name} (to ${why})`).join(", "));
    }
    return CAPABILITIES.map(([, name]) => name).join(", ");
  });
}

function cgroup2(): Check {
  return check(
    "cgroup v2",
    "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 as below",
    () => cgroup2Mount(readFileSync("/proc/self/mountinfo", "utf8")),
  );
}

function bpfFileSystem(stateDirectory: string): Check {
  const parent = dirname(stateDirectory);
  return check(
    "bpffs for the state directory",
    `mount -t bpf bpf ${parent} (the agent mounts one on ${stateDirectory} itself when it can)`,
    () => {
      const mounts = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
      const found = mounts.map((line) => line.split(" - ")).filter(([, back]) =>
        back?.startsWith("bpf ")
      )
        .map(([front]) => front?.split(" ")[4] ?? "")
        .find((mount) => stateDirectory === mount || stateDirectory.startsWith(`${mount}/`));
      if (found === undefined) throw new Error(`${stateDirectory} is on none`);
      return found;
    },
  );
}

function library(file: string, need: string, todo: string): Check {
  return check(need, todo, () => {
    requireLibrary(file);
    return file;
  });
}
