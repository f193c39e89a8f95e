import { match, strictEqual, throws } from "node:assert/strict";
import { readFileSync, statSync, symlinkSync } from "node:fs";
import { cgroup2Mount } from "../cgroup_mount.ts";
import { SystemError } from "./errno.ts";
import { cgroupId, inodeOf, openCgroupDirectory, readLink } from "./file_system.ts";

Deno.test("an inode number is that of what a path leads to", () => {
  const directory = Deno.makeTempDirSync();
  try {
    symlinkSync(directory, `${directory}/link`);
    const { ino } = statSync(directory, { bigint: true });
    strictEqual(inodeOf(directory), ino);
    strictEqual(inodeOf(`${directory}/link`), ino);
    throws(() => inodeOf(`${directory}/none`), (error: unknown) => {
      return error instanceof SystemError && /ENOENT/.test(error.message);
    });
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("a cgroup that is gone with all of cgroup v2 is another matter than one that is gone alone", () => {
  const directory = Deno.makeTempDirSync();
  const mount = cgroup2Mount(readFileSync("/proc/self/mountinfo", "utf8"));
  try {
    for (const look of [cgroupId, openCgroupDirectory]) {
      throws(
        () => look(`${directory}/kubepods/pod1`),
        new RegExp(`not mounted on ${directory} any more: mount -t cgroup2 none ${directory}$`),
      );
      throws(
        () => look(`${mount}/kgw-test-none/pod1`),
        (error: unknown) => error instanceof SystemError && /ENOENT/.test(error.message),
      );
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("a link that cannot be read, is longer than any name of a namespace, or is none says nothing wrong", () => {
  const directory = Deno.makeTempDirSync();
  try {
    const long = "x".repeat(300);
    symlinkSync(long, `${directory}/long`);
    strictEqual(readLink(`${directory}/none`), undefined);
    strictEqual(readLink(directory), undefined);
    strictEqual(readLink(`${directory}/long`), undefined);
    match(readLink("/proc/self/ns/net") ?? "", /^net:\[\d+\]$/);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
