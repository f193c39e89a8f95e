import { deepStrictEqual, match, strictEqual, throws } from "node:assert/strict";
import { chmodSync, chownSync, existsSync, mkdirSync, statSync } from "node:fs";
import {
  isBpfFileSystem,
  mountBpfFileSystem,
  openDirectory,
  tryLock,
  unmount,
} from "../native/file_system.ts";
import { lockHolder, StateDirectory } from "./state_directory.ts";
import { ROOT } from "../root_for_tests.ts";

Deno.test(
  "one has charge of a state directory, and the next one when that is disposed of",
  ROOT,
  () =>
    withBpffs((bpffs) => {
      const path = `${bpffs}/state`;
      const first = new StateDirectory(path);
      strictEqual(first.take(), undefined);
      first.isObsolete = false;
      using second = new StateDirectory(path);
      deepStrictEqual(second.take(), { pid: Deno.pid });
      first[Symbol.dispose]();
      strictEqual(second.take(), undefined);
    }),
);

Deno.test(
  "a directory that is not root's alone is refused, with what to do",
  ROOT,
  () =>
    withBpffs((bpffs) => {
      const path = `${bpffs}/state`;
      mkdirSync(path, { mode: 0o700 });
      using state = new StateDirectory(path);
      for (const mode of [0o750, 0o705, 0o720, 0o1777]) {
        chmodSync(path, mode);
        throws(
          () => state.take(),
          new RegExp(`state belongs to user 0, mode ${octal(mode)}: .*chmod`),
        );
      }
      chmodSync(path, 0o700);
      chownSync(path, 65_534, 0);
      throws(
        () => state.take(),
        /belongs to user 65534, mode 0700: it must be root's alone.*chown root/,
      );
      chownSync(path, 0, 0);
      strictEqual(state.take(), undefined);
    }),
);

Deno.test(
  "what was made for it goes with it: a bpffs that is root's alone, and directories",
  ROOT,
  async () => {
    const base = await Deno.makeTempDir();
    try {
      const path = `${base}/one/two/state`;
      {
        using state = new StateDirectory(path);
        strictEqual(state.take(), undefined);
        strictEqual(isBpfFileSystem(path), true);
        strictEqual(statSync(path).mode & 0o777, 0o700);
        using other = new StateDirectory(path);
        deepStrictEqual(other.take(), { pid: Deno.pid });
        strictEqual(existsSync(path), true);
      }
      deepStrictEqual([...Deno.readDirSync(base)], []);

      // Whoever waits meanwhile mounts one of his own.
      const first = new StateDirectory(path);
      strictEqual(first.take(), undefined);
      {
        using next = new StateDirectory(path);
        deepStrictEqual(next.take(), { pid: Deno.pid });
        first[Symbol.dispose]();
        strictEqual(next.take(), undefined);
        strictEqual(isBpfFileSystem(path), true);
      }
      deepStrictEqual([...Deno.readDirSync(base)], []);
    } finally {
      await Deno.remove(base, { recursive: true });
    }
  },
);

Deno.test(
  "charge is kept of what is at the path, whatever becomes of it, unless another has it",
  ROOT,
  async () => {
    const base = await Deno.makeTempDir();
    try {
      const path = `${base}/state`;
      using state = new StateDirectory(path);
      strictEqual(state.take(), undefined);
      state.isObsolete = false;
      deepStrictEqual(state.keepCharge(), []);

      const gone = [{
        kind: "state_directory",
        what: `${path} was removed, or its bpffs unmounted`,
      }];
      unmount(path);
      deepStrictEqual(state.keepCharge(), gone);
      deepStrictEqual(state.keepCharge(), []);
      strictEqual(isBpfFileSystem(path), true);
      strictEqual(state.isObsolete, false, "its pods are still there");
      {
        using other = new StateDirectory(path);
        deepStrictEqual(other.take(), { pid: Deno.pid });
      }

      unmount(path);
      {
        using other = new StateDirectory(path);
        strictEqual(other.take(), undefined);
        throws(
          () => state.keepCharge(),
          new RegExp(`and process ${Deno.pid} has charge of what is there now: stop one`),
        );
      }
      deepStrictEqual(state.keepCharge(), gone);
      state.isObsolete = true;
    } finally {
      await Deno.remove(base, { recursive: true });
    }
  },
);

Deno.test(
  "what a user has made there first is moved aside where all may write",
  ROOT,
  () =>
    withBpffs((bpffs) => {
      const path = `${bpffs}/state`;
      chmodSync(bpffs, 0o1777);
      mkdirSync(path, { mode: 0o755 });
      chownSync(path, 65_534, 0);
      {
        using state = new StateDirectory(path);
        strictEqual(state.take(), undefined);
        const { uid, mode } = statSync(path);
        deepStrictEqual([uid, mode & 0o777], [0, 0o700]);
      }
      const names = [...Deno.readDirSync(bpffs)].map(({ name }) => name);
      const aside = names.filter((name) => name.startsWith("state"));
      match(aside.join(), /^state-of-user-65534-[^,]+$/);
    }),
);

Deno.test(
  "a user who keeps the place of the bpffs locked keeps no agent from starting",
  ROOT,
  async () => {
    const base = await Deno.makeTempDir();
    try {
      const path = `${base}/state`;
      await Deno.mkdir(path, { mode: 0o700 });
      const directory = openDirectory(path);
      strictEqual(tryLock(directory.descriptor, path), true);
      {
        using state = new StateDirectory(path);
        strictEqual(state.take(), undefined);
        strictEqual(isBpfFileSystem(path), true);
        using other = new StateDirectory(path);
        deepStrictEqual(other.take(), { pid: Deno.pid }, "its agent's lock is on the bpffs");
      }
      directory[Symbol.dispose]();
    } finally {
      await Deno.remove(base, { recursive: true });
    }
  },
);

Deno.test("a part of a state directory is none", ROOT, () =>
  withBpffs((base) => {
    const path = `${base}/state`;
    for (const name of ["maps", "pods"]) {
      mkdirSync(`${path}/${name}`, { recursive: true, mode: 0o700 });
    }
    for (const part of ["pods", "maps", "new"]) {
      using state = new StateDirectory(`${path}/${part}`);
      throws(() => state.take(), /is a part of the state directory .*\/state: name that/);
    }
  }));

Deno.test("what was there before stays, unless it is obsolete", ROOT, () =>
  withBpffs((bpffs) => {
    const path = `${bpffs}/state`;
    mkdirSync(`${path}/pods/uid`, { recursive: true, mode: 0o700 });
    {
      using state = new StateDirectory(path);
      strictEqual(state.take(), undefined);
      strictEqual(state.isObsolete, false);
    }
    strictEqual(existsSync(`${path}/pods/uid`), true);
    {
      using state = new StateDirectory(path);
      state.take();
      state.isObsolete = true;
    }
    strictEqual(existsSync(path), false);
  }));

Deno.test("a lock's holder is found in /proc/locks by device and inode", () => {
  const locks = [
    "1: POSIX  ADVISORY  READ 8652 fe:00:311015 128 128",
    "2: FLOCK  ADVISORY  WRITE 1 fe:00:311015 0 EOF",
    "3: FLOCK  ADVISORY  WRITE 10054 00:2a:311015 0 EOF",
    "3: -> FLOCK  ADVISORY  WRITE 10055 00:2a:311015 0 EOF",
    "4: FLOCK  ADVISORY  WRITE 7 103:12345:9 0 EOF",
    "5: FLOCK  ADVISORY  WRITE 0 00:2a:5 0 EOF",
  ].join("\n");
  strictEqual(lockHolder(locks, 0x2an, 311_015n), 10_054);
  strictEqual(lockHolder(locks, 0xfe00n, 311_015n), 1);
  strictEqual(lockHolder(locks, 0x12310345n, 9n), 7); // 12 bits of major between the minor's 8 and 12
  strictEqual(lockHolder(locks, 0x2an, 5n), undefined, "a process of another PID namespace");
  strictEqual(lockHolder(locks, 0x2an, 31_101n), undefined);
});

async function withBpffs(use: (path: string) => void): Promise<void> {
  const path = await Deno.makeTempDir();
  mountBpfFileSystem(path);
  try {
    match(Deno.readTextFileSync("/proc/mounts"), new RegExp(`^bpf ${path} bpf .*mode=700`, "m"));
    use(path);
  } finally {
    unmount(path);
    await Deno.remove(path);
  }
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, "0");
}
