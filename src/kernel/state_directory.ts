import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmdirSync,
  statSync,
} from "node:fs";
import { dirname } from "node:path";
import { logger } from "../log.ts";
import {
  bpfMountPoint,
  isBpfFileSystem,
  mountBpfFileSystem,
  nearest,
  openDirectory,
  tryLock,
  unmount,
} from "../native/file_system.ts";
import type { Fault } from "./fault.ts";
import { removeState } from "./redirector.ts";

const log = logger("kernel");

/** Who has a state directory. */
export interface Holder {
  /** Undefined when this process cannot see which one it is. */
  readonly pid: number | undefined;
}

/**
 * A node's state directory: on a bpffs, root's alone, and in the charge of one process at a time.
 * Whoever else changed something there would take pods from under their agent, which would go on
 * saying that they are encrypted.
 */
export class StateDirectory implements Disposable {
  #lock: Lock | undefined;
  #mounted: string | undefined;
  /** What had to be made for it, the outermost first. */
  #made: string | undefined;
  /**
   * Whether all of it is removed with this object: at first, when no earlier agent has left
   * anything there.
   */
  isObsolete = false;

  constructor(readonly path: string) {}

  /**
   * Takes charge, until this is disposed of; or says who has it. Makes the directory, and mounts a
   * bpffs where there is none. Throws an Error that says what to do when the directory is not to be
   * trusted.
   */
  take(): Holder | undefined {
    requireWhole(this.path);
    for (let tries = 0; tries < 100; tries++) {
      this.#mount();
      moveStrangersAside(this.path);
      this.#make(this.path);
      const lock = lockDirectory(this.path, requireOwn);
      if ("pid" in lock) return lock;
      if (lock.isStillThere()) {
        this.#lock = lock;
        this.isObsolete = !["maps", "pods"].some((name) => existsSync(`${this.path}/${name}`));
        return undefined;
      }
      lock[Symbol.dispose](); // its holder has removed it, or mounted something above it
    }
    throw new Error(`${this.path} is replaced as often as it is opened: who else uses it?`);
  }

  /**
   * Takes charge anew when the path leads elsewhere by now: somebody has removed the directory, or
   * unmounted its bpffs. What was pinned there has to be pinned again. Throws an Error as
   * {@link take} does, and when another has charge of what is there now.
   */
  keepCharge(): Fault[] {
    const before = this.#lock;
    if (before === undefined || before.isStillThere()) return [];
    const { isObsolete } = this;
    const holder = this.take();
    this.isObsolete = isObsolete;
    if (holder !== undefined) {
      const who = holder.pid === undefined ? "another process" : `process ${holder.pid}`;
      throw new Error(
        `${this.path} was removed, or its bpffs unmounted, and ${who} has charge of what is there ` +
          "now: stop one of the two agents",
      );
    }
    before[Symbol.dispose]();
    const what = `${this.path} was removed, or its bpffs unmounted`;
    return [{ kind: "state_directory", what }];
  }

  /** Detaches every pod, removes all of it, and says how many pods there were. */
  remove(): number {
    const pods = existsSync(`${this.path}/pods`) ? removeState(this.path) : 0;
    // While it lies on what we have mounted, nobody can have charge of it before that is gone.
    if (this.#mounted !== undefined) unmount(this.#mounted);
    removeEmpty(this.path, this.#made ?? this.path);
    this.isObsolete = false;
    return pods;
  }

  /** Gives up charge; what is pinned stays in force, unless it is obsolete. */
  [Symbol.dispose](): void {
    try {
      if (this.#lock !== undefined && this.isObsolete) this.remove();
    } finally {
      this.#lock?.[Symbol.dispose]();
      this.#lock = undefined;
    }
  }

  #make(path: string): void {
    const made = mkdirSync(path, { recursive: true, mode: 0o700 });
    this.#made ??= made;
  }

  /** Pins need a bpffs, which the system usually mounts on /sys/fs/bpf. */
  #mount(): void {
    if (isBpfFileSystem(nearest(this.path))) return;
    const target = bpfMountPoint(this.path);
    this.#make(target);
    using lock = lockForMounting(target);
    // Somebody else has.
    if (lock?.isStillThere() === false || isBpfFileSystem(nearest(this.path))) return;
    mountBpfFileSystem(target);
    this.#mounted = target;
    log.warn("{directory} was not on a bpffs: mounted one on {target}", {
      directory: this.path,
      target,
    });
  }
}

/**
 * Whoever mounts a bpffs there right now needs milliseconds for that. Every user of the node can
 * lock a directory that he may read, and keep it locked: then it is mounted without, which
 * {@link StateDirectory.take} survives.
 */
function lockForMounting(target: string): Lock | undefined {
  for (let tries = 0; tries < 50; tries++) {
    const lock = lockDirectory(target);
    if (!("pid" in lock)) return lock;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
  }
  return undefined;
}

interface Lock extends Disposable {
  /** Whether the path leads to what was locked. */
  readonly isStillThere: () => boolean;
}

function lockDirectory(path: string, check: typeof requireOwn = () => {}): Lock | Holder {
  const directory = openDirectory(path);
  try {
    const { ino, dev, uid, mode } = statSync(`/proc/self/fd/${directory.descriptor}`, BIG);
    check(path, uid, mode);
    if (tryLock(directory.descriptor, path)) {
      return {
        isStillThere: () => {
          const now = statSync(path, { ...BIG, throwIfNoEntry: false });
          return now?.ino === ino && now.dev === dev;
        },
        [Symbol.dispose]: () => directory[Symbol.dispose](),
      };
    }
    directory[Symbol.dispose]();
    return { pid: lockHolder(readFileSync("/proc/locks", "utf8"), dev, ino) };
  } catch (error) {
    directory[Symbol.dispose]();
    throw error;
  }
}

/** What lies in another's state directory would be taken, or removed, from under its agent. */
function requireWhole(path: string): void {
  const existing = nearest(path);
  const whole = realpathSync(existing);
  const above = existing === path ? dirname(whole) : whole;
  if (!["maps", "pods"].every((name) => existsSync(`${above}/${name}`))) return;
  throw new Error(`${path} is a part of the state directory ${above}: name that`);
}

/**
 * mount(8) makes a bpffs that every user may write to, and who comes first has the name: he would
 * keep the agent from starting. What belongs to a user there is nothing of ours.
 */
function moveStrangersAside(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  const above = lstatSync(dirname(path), { throwIfNoEntry: false });
  if (found === undefined || found.uid === 0 || above === undefined) return;
  if (above.uid !== 0 || (above.mode & 0o022) === 0 || !isBpfFileSystem(dirname(path))) return;
  const aside = `${path}-of-user-${found.uid}-${crypto.randomUUID()}`;
  renameSync(path, aside);
  log.warn("{path} was made by user {uid}: it is {aside} now. Every user may write to {above}", {
    path,
    uid: found.uid,
    aside,
    above: dirname(path),
  });
}

/** Whoever may write there could have pods detached, and maps say what he likes. */
function requireOwn(path: string, uid: bigint, mode: bigint): void {
  if (uid === 0n && (mode & 0o077n) === 0n) return;
  const has = `belongs to user ${uid}, mode ${(mode & 0o7777n).toString(8).padStart(4, "0")}`;
  throw new Error(
    `${path} ${has}: it must be root's alone. Look who else was there, then chown root ${path} && ` +
      `chmod 0700 ${path}`,
  );
}

/**
 * The process that has a flock(2) on a file, from the text of /proc/locks (proc(5)): undefined when
 * there is none, or when it is one of a PID namespace that cannot be seen from here.
 */
export function lockHolder(locks: string, dev: bigint, ino: bigint): number | undefined {
  // include/linux/kdev_t.h, new_encode_dev: 12 bits of major, 20 of minor, in pieces.
  const major = dev >> 8n & 0xfffn;
  const minor = dev & 0xffn | dev >> 12n & 0xfff00n;
  const hex = (number: bigint) => number.toString(16).padStart(2, "0");
  const file = `${hex(major)}:${hex(minor)}:${ino}`;
  for (const line of locks.split("\n")) {
    // 37: FLOCK  ADVISORY  WRITE 10054 00:2a:311015 0 EOF; one that waits has "->" in front.
    const [, kind, , , pid, where] = line.split(/ +/);
    if (kind === "FLOCK" && where === file && Number(pid) > 0) return Number(pid);
  }
  return undefined;
}

/** Removes a directory and those above it up to `last`, as far as they are empty. */
function removeEmpty(path: string, last: string): void {
  for (let directory = path; directory.startsWith(last); directory = dirname(directory)) {
    try {
      rmdirSync(directory);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // Another has put something there, or mounted a bpffs on it, or it went with ours.
      if (code === "ENOTEMPTY" || code === "EBUSY") return;
      if (code !== "ENOENT") throw error;
    }
  }
}

const BIG = { bigint: true } as const;
