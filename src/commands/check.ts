import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { cgroup2Mount } from "../cgroup_mount.ts";
import { errorText } from "../error_text.ts";
import { bpfMountPoint, isBpfFileSystem, nearest } from "../native/file_system.ts";
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

const CAP_SYS_ADMIN = 21;

/** Bits of /proc/self/status' CapEff (linux/capability.h), and what each is for. */
const CAPABILITIES: readonly [number, string, string][] = [
  [12, "CAP_NET_ADMIN", "attach programs to cgroups"],
  [19, "CAP_SYS_PTRACE", "find the namespaces of pods' processes"],
  [CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "enter pods' network namespaces, pin on bpffs"],
  [39, "CAP_BPF", "load programs and maps"],
];

function capabilities(): Check {
  return check("capabilities", "run as root, privileged, or with these added", () => {
    const missing = CAPABILITIES.filter(([bit]) => !hasCapability(bit));
    if (missing.length > 0) {
      throw new Error(missing.map(([, name, why]) => `no ${name} (to ${why})`).join(", "));
    }
    return CAPABILITIES.map(([, name]) => name).join(", ");
  });
}

function hasCapability(bit: number): boolean {
  const line = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"));
  return (BigInt(`0x${line?.[1] ?? "0"}`) >> BigInt(bit) & 1n) === 1n;
}

function cgroup2(): Check {
  return check(
    "cgroup v2",
    "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 as below",
    () => cgroup2Mount(readFileSync("/proc/self/mountinfo", "utf8")),
  );
}

/** What the agent does by itself is no need; whether it can, the agent would only tell later. */
export function bpfFileSystem(stateDirectory: string): Check {
  const todo = `mount -t bpf bpf ${
    dirname(stateDirectory)
  }, or name another place with --state-dir`;
  return check("bpffs for the state directory", todo, () => {
    const existing = nearest(stateDirectory);
    if (isBpfFileSystem(existing)) return existing;
    const target = bpfMountPoint(stateDirectory);
    const obstacle = mountObstacle(existing, target);
    if (obstacle !== undefined) {
      throw new Error(`${stateDirectory} is on none, and the agent cannot mount one: ${obstacle}`);
    }
    return `${stateDirectory} is on none yet: the agent mounts one on ${target}`;
  });
}

/** Why no bpffs can be mounted on `target`, which has to be made below `existing` first. */
function mountObstacle(existing: string, target: string): string | undefined {
  if (!/\bbpf$/m.test(readFileSync("/proc/filesystems", "utf8"))) return "the kernel has no bpffs";
  if (!hasCapability(CAP_SYS_ADMIN)) return "it would need CAP_SYS_ADMIN";
  if (!statSync(existing).isDirectory()) return `${existing} is no directory`;
  if (target === existing) return undefined;
  if (/^\/(sys|proc)(\/|$)/.test(existing)) return `no directory can be made in ${existing}`;
  try {
    accessSync(existing, constants.W_OK | constants.X_OK);
    return undefined;
  } catch (error) {
    return errorText(error);
  }
}

function library(file: string, need: string, todo: string): Check {
  return check(need, todo, () => {
    requireLibrary(file);
    return file;
  });
}
