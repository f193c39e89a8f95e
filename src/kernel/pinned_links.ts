import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { attachedProgramIds, BpfLink, type BpfLinkInfo } from "../native/bpf_link.ts";
import { inodeOf, openCgroupDirectory } from "../native/file_system.ts";
import type { Fault } from "./fault.ts";

/** One of the object's programs. */
export interface Program {
  readonly name: string;
  readonly descriptor: number;
  /** The kernel's number of it. */
  readonly id: number;
  /** enum bpf_attach_type, linux/bpf.h */
  readonly attachType: number;
}

/** What programs are attached to. */
export interface Target {
  /** Of an open cgroup or network namespace. */
  readonly descriptor: number;
  /** The cgroup's ID, or the namespace's inode number. */
  readonly id: bigint;
  readonly about: string;
}

/** A cgroup held open: its directory may be another one's by tomorrow. Throws an Error. */
export function openCgroup(path: string): Target & Disposable {
  const directory = openCgroupDirectory(path);
  return {
    descriptor: directory.descriptor,
    id: inodeOf(`/proc/self/fd/${directory.descriptor}`),
    about: path,
    [Symbol.dispose]: () => directory[Symbol.dispose](),
  };
}

/** A network namespace by its open descriptor, which is lent. */
export function namespaceTarget(descriptor: number, about: string): Target {
  return {
    descriptor,
    id: inodeOf(`/proc/self/fd/${descriptor}`),
    about,
  };
}

/**
 * Links by name, each held open by this process and pinned as `<directory>/<name>`. The descriptor
 * keeps the program attached when somebody removes the pin, the pin when this process ends.
 */
export class PinnedLinks implements Disposable {
  readonly #held = new Map<string, BpfLink>();

  /**
   * Takes hold of what an earlier agent has pinned under these names, each with its attach type.
   * Throws a SystemError when it cannot be told what is pinned there.
   */
  constructor(readonly directory: string, names: ReadonlyMap<string, number>) {
    try {
      for (const [name, attachType] of names) {
        const link = BpfLink.open(this.#path(name));
        if (link?.info().attachType === attachType) this.#held.set(name, link);
        else link?.[Symbol.dispose]();
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  get size(): number {
    return this.#held.size;
  }

  /**
   * Attaches a program under this name, or puts it in the place of the one that is there already,
   * with no moment between the two; what was attached elsewhere goes then. Puts right all that
   * {@link inspect} names. Throws a SystemError; what was attached stays then.
   */
  attach(name: string, program: Program, target: Target): void {
    const { descriptor, attachType } = program;
    const held = this.#held.get(name);
    if (held !== undefined && standsAt(held.info(), attachType, target)) {
      replaceUnlessSame(held, program, target);
    } else {
      // An agent that has only just ended may have attached it after this one had begun.
      const pinned = this.#pinnedAt(name, attachType, target);
      const link = pinned ??
        BpfLink.attach(descriptor, target.descriptor, attachType, target.about);
      this.#held.set(name, link);
      if (held !== undefined) end(held, target.about);
      replaceUnlessSame(link, program, target);
    }
    this.#pin(name);
  }

  /**
   * Which of these programs are not attached at this moment, or not pinned under their names; what
   * stands at the pins, and whether it is by our links that they are attached, {@link inspect}
   * asks: with five calls for each instead of one. Throws a SystemError when it
   * cannot be looked at.
   */
  glance(programs: Iterable<readonly [name: string, Program]>, target: Target): Fault[] {
    const pins = new Set(namesIn(this.directory));
    return [...programs].flatMap(([name, program]) => {
      const present = attachedProgramIds(target.descriptor, program.attachType, target.about);
      return [
        ...present.includes(program.id) ? [] : [missing(program, target, "link")],
        ...pins.has(name) ? [] : [unpinned(this.#path(name))],
      ];
    });
  }

  /**
   * What is wrong with the link of this name; `kind` is what a missing program is to be called.
   * Throws a SystemError when it cannot be looked at.
   */
  inspect(name: string, program: Program, target: Target, kind: Fault["kind"]): Fault[] {
    const faults: Fault[] = [];
    const held = this.#held.get(name);
    const info = held?.info();
    const present = attachedProgramIds(target.descriptor, program.attachType, target.about);
    if (
      info === undefined || !standsAt(info, program.attachType, target) ||
      !present.includes(program.id)
    ) {
      faults.push(missing(program, target, kind));
    }
    if (info !== undefined && !this.#isPinned(name, info)) {
      faults.push(unpinned(this.#path(name)));
    }
    return faults;
  }

  has(name: string): boolean {
    return this.#held.has(name);
  }

  /**
   * Detaches the program of this name, if there is one, and removes its pin. Throws a SystemError.
   */
  remove(name: string): void {
    const held = this.#held.get(name);
    this.#held.delete(name);
    rmSync(this.#path(name), { recursive: true, force: true });
    if (held !== undefined) end(held, this.#path(name));
  }

  /** Names in the directory that are none of the links held: another version's, or a stranger's. */
  strangers(): string[] {
    return namesIn(this.directory).filter((name) => !this.#held.has(name));
  }

  /**
   * Detaches every program, the last one first, whoever else holds it open, and removes the
   * directory. Throws a SystemError.
   */
  end(): void {
    const links = [...this.#held].reverse();
    this.#held.clear();
    rmSync(this.directory, { recursive: true, force: true });
    for (const [name, link] of links) end(link, this.#path(name));
  }

  /** Lets go of the descriptors: what is pinned stays attached. */
  [Symbol.dispose](): void {
    for (const link of this.#held.values()) link[Symbol.dispose]();
    this.#held.clear();
  }

  #pinnedAt(name: string, attachType: number, target: Target): BpfLink | undefined {
    const pinned = BpfLink.open(this.#path(name));
    if (pinned === undefined || standsAt(pinned.info(), attachType, target)) return pinned;
    pinned[Symbol.dispose]();
    return undefined;
  }

  #pin(name: string): void {
    const held = this.#held.get(name);
    if (held === undefined || this.#isPinned(name, held.info())) return;
    mkdirSync(this.directory, { recursive: true, mode: 0o700 });
    // Nothing is detached by this: what was held under this name has gone already, or is the same
    // link.
    rmSync(this.#path(name), { recursive: true, force: true });
    held.pin(this.#path(name));
  }

  #isPinned(name: string, wanted: BpfLinkInfo): boolean {
    using pinned = BpfLink.open(this.#path(name));
    if (pinned === undefined) return false;
    const seen = pinned.info();
    // A map or a program that happens to have the link's number differs in the rest.
    return seen.id === wanted.id && seen.programId === wanted.programId &&
      seen.attachType === wanted.attachType && seen.target === wanted.target;
  }

  #path(name: string): string {
    return `${this.directory}/${name}`;
  }
}

function missing({ name }: Program, { about }: Target, kind: Fault["kind"]): Fault {
  return { kind, what: `${name} is not attached to ${about}` };
}

function unpinned(path: string): Fault {
  return { kind: "pin", what: `${path} is missing or something else` };
}

/** The names in a directory; none when it is not there. */
export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/**
 * Whether a link is attached there at this moment. A cgroup or namespace that is gone has taken its
 * links along.
 */
function standsAt(info: BpfLinkInfo, attachType: number, target: Target): boolean {
  return info.attachType === attachType && info.target === target.id;
}

function replaceUnlessSame(link: BpfLink, { descriptor, id }: Program, { about }: Target): void {
  if (link.info().programId !== id) link.replace(descriptor, about);
}

function end(link: BpfLink, about: string): void {
  try {
    link.detach(about);
  } finally {
    link[Symbol.dispose]();
  }
}
