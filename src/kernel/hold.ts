import { mkdirSync, rmSync } from "node:fs";
import type { BpfMap } from "../native/bpf_map.ts";
import { cgroupId } from "../native/file_system.ts";
import type { Fault } from "./fault.ts";
import { decodeId, encodeId, encodeNumber } from "./maps.ts";
import { namesIn, openCgroup, PinnedLinks, type Program } from "./pinned_links.ts";

/** Program to attach type (enum bpf_attach_type, linux/bpf.h). */
export const HOLD_PROGRAMS = { hold4: 10, hold6: 11 } as const;

export type HoldProgram = keyof typeof HOLD_PROGRAMS;

const LINKS = new Map<string, number>(Object.entries(HOLD_PROGRAMS));

/**
 * The programs above all pods, pinned below `directory`: whoever is below them and not `decided` is
 * held. It takes no agent to hold a pod, only to let one go.
 */
export class Hold implements Disposable {
  readonly #directory: string;
  readonly #decided: BpfMap;
  readonly #program: (name: HoldProgram) => Program;
  /** By the cgroup's ID. */
  readonly #links = new Map<string, PinnedLinks>();

  constructor(directory: string, decided: BpfMap, program: (name: HoldProgram) => Program) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#directory = directory;
    this.#decided = decided;
    this.#program = program;
    for (const id of namesIn(directory)) this.#linksOf(id);
  }

  /**
   * Holds below these cgroups from now on, and nowhere else; mends what {@link inspect} names.
   * Throws a SystemError.
   */
  below(cgroups: readonly string[]): void {
    const ids = new Set<string>();
    for (const cgroup of cgroups) {
      using target = openCgroup(cgroup);
      const id = String(target.id);
      ids.add(id);
      const links = this.#linksOf(id);
      for (const name of programNames()) links.attach(name, this.#program(name), target);
    }
    for (const [id, links] of this.#links) {
      if (ids.has(id)) continue;
      this.#links.delete(id);
      links.end();
    }
    for (const id of namesIn(this.#directory)) {
      if (!ids.has(id)) rmSync(`${this.#directory}/${id}`, { recursive: true });
    }
  }

  /** What does not hold below these cgroups, or would not without this process. */
  inspect(cgroups: readonly string[]): Fault[] {
    return cgroups.flatMap((cgroup) => {
      using target = openCgroup(cgroup);
      const links = this.#linksOf(String(target.id));
      return programNames().flatMap((name) =>
        links.inspect(name, this.#program(name), target, "hold")
      );
    });
  }

  /** This pod is not held by these programs any more. Throws when its cgroup is gone. */
  letGo(cgroup: string): void {
    this.#decided.set(encodeId(cgroupId(cgroup)), encodeNumber(1));
  }

  /** Whether a pod that is there, by its cgroup's ID, was let go. */
  hasLetGo(cgroup: bigint): boolean {
    return this.#decided.has(encodeId(cgroup));
  }

  /** Forgets who was let go, but for the pods of these cgroups. */
  forgetAllBut(cgroups: Iterable<string>): void {
    const present = new Set<bigint>();
    for (const cgroup of cgroups) {
      try {
        present.add(cgroupId(cgroup));
      } catch {
        // Gone while we look.
      }
    }
    for (const key of this.#decided.keys()) {
      if (!present.has(decodeId(key))) this.#decided.delete(key);
    }
  }

  /** Lets go of the descriptors; pods stay held. */
  [Symbol.dispose](): void {
    for (const links of this.#links.values()) links[Symbol.dispose]();
  }

  #linksOf(id: string): PinnedLinks {
    const known = this.#links.get(id);
    if (known !== undefined) return known;
    const links = new PinnedLinks(`${this.#directory}/${id}`, LINKS);
    this.#links.set(id, links);
    return links;
  }
}

/** Detaches what is pinned below `directory`, and removes that. */
export function removeHolds(directory: string): void {
  for (const id of namesIn(directory)) new PinnedLinks(`${directory}/${id}`, LINKS).end();
  rmSync(directory, { recursive: true, force: true });
}

function programNames(): HoldProgram[] {
  return Object.keys(HOLD_PROGRAMS) as HoldProgram[];
}
