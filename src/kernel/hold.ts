import { mkdirSync, readdirSync, rmSync } from "node:fs";
import type { BpfMap } from "../native/bpf_map.ts";
import { cgroupId } from "../native/file_system.ts";
import { decodeId, encodeId, encodeNumber } from "./maps.ts";
import { attachPinned } from "./pinned_link.ts";

/** Program to attach type (enum bpf_attach_type, linux/bpf.h). */
export const HOLD_PROGRAMS = { hold4: 10, hold6: 11 } as const;

export type HoldProgram = keyof typeof HOLD_PROGRAMS;

/**
 * The programs above all pods, pinned below `directory`: whoever is below them and not `decided` is held. It takes no
 * agent to hold a pod, only to let one go.
 */
export class Hold {
  readonly #directory: string;
  readonly #decided: BpfMap;
  readonly #program: (name: HoldProgram) => number;

  constructor(directory: string, decided: BpfMap, program: (name: HoldProgram) => number) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#directory = directory;
    this.#decided = decided;
    this.#program = program;
  }

  /** Holds below these cgroups from now on, and nowhere else. Throws a SystemError. */
  below(cgroups: readonly string[]): void {
    const ids = new Set<string>();
    for (const cgroup of cgroups) {
      const id = String(cgroupId(cgroup));
      ids.add(id);
      const pins = `${this.#directory}/${id}`;
      mkdirSync(pins, { recursive: true, mode: 0o700 });
      for (const [name, type] of Object.entries(HOLD_PROGRAMS) as [HoldProgram, number][]) {
        attachPinned(this.#program(name), type, cgroup, `${pins}/${name}`);
      }
    }
    for (const id of readdirSync(this.#directory)) {
      if (!ids.has(id)) rmSync(`${this.#directory}/${id}`, { recursive: true });
    }
  }

  /** This pod is not held by these programs any more. Throws when its cgroup is gone. */
  letGo(cgroup: string): void {
    this.#decided.set(encodeId(cgroupId(cgroup)), encodeNumber(1));
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
}
