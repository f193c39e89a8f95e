/**
 * What the kernel holds of ours: the programs and maps, loaded once per node, and the links that attach the
 * programs to a pod's cgroup. All of it is pinned below the state directory, so it outlives a crash of the
 * agent (redirected connections are then refused, never sent in clear), and a new agent adopts it.
 */
import { mkdirSync, readdirSync, rmdirSync, rmSync } from "node:fs";
import { BpfLink, BpfObject } from "../native/bpf_object.ts";
import type { BpfMap } from "../native/bpf_map.ts";
import { openDirectory } from "../native/file_system.ts";
import { MAPS, openMap, SOCKET_STORAGE } from "./maps.ts";

/** Program to attach type (enum bpf_attach_type, linux/bpf.h). */
export const PROGRAMS = {
  connect4: 10,
  connect6: 11,
  note_flow: 3,
  getpeername4: 29,
  getpeername6: 30,
  getsockname4: 31,
  getsockname6: 32,
} as const;

type ProgramName = keyof typeof PROGRAMS;
const PROGRAM_NAMES = Object.keys(PROGRAMS) as ProgramName[];

export class Redirector implements Disposable {
  readonly peers: BpfMap;
  readonly identities: BpfMap;
  readonly pods: BpfMap;
  readonly flows: BpfMap;
  readonly origins: BpfMap;
  readonly #object: BpfObject;

  /** Loads `objectFile`; `stateDirectory` lies on a bpffs. Maps that are pinned there are taken over. */
  constructor(objectFile: string, readonly stateDirectory: string) {
    mkdirSync(mapsDirectory(stateDirectory), { recursive: true, mode: 0o700 });
    mkdirSync(podsDirectory(stateDirectory), { recursive: true, mode: 0o700 });
    this.#object = new BpfObject(
      objectFile,
      [...Object.keys(MAPS), SOCKET_STORAGE],
      mapsDirectory(stateDirectory),
    );
    this.peers = openMap("peers", this.#object.map("peers"));
    this.identities = openMap("identities", this.#object.map("identities"));
    this.pods = openMap("pods", this.#object.map("pods"));
    this.flows = openMap("flows", this.#object.map("flows"));
    this.origins = openMap("origins", this.#object.map("origins"));
  }

  /**
   * Attaches every program to a pod's cgroup, or replaces those that an earlier agent attached and pinned.
   * Throws a SystemError with nothing half attached.
   */
  attach(uid: string, cgroup: string): void {
    const directory = `${podsDirectory(this.stateDirectory)}/${uid}`;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    try {
      using target = openDirectory(cgroup);
      for (const name of PROGRAM_NAMES) this.#attachOne(name, target.descriptor, directory, cgroup);
    } catch (error) {
      this.detach(uid);
      throw error;
    }
  }

  /** Detaches a pod's programs: its next connection is plain TCP. */
  detach(uid: string): void {
    rmSync(`${podsDirectory(this.stateDirectory)}/${uid}`, { recursive: true, force: true });
  }

  /** The pods that have programs attached, also by an earlier agent. */
  attached(): string[] {
    return readdirSync(podsDirectory(this.stateDirectory));
  }

  /** Gives up the descriptors; what is pinned stays in force. */
  [Symbol.dispose](): void {
    this.#object[Symbol.dispose]();
  }

  #attachOne(name: ProgramName, target: number, directory: string, cgroup: string): void {
    const path = `${directory}/${name}`;
    const about = `${name} on ${cgroup}`;
    const program = this.#object.program(name);
    const pinned = BpfLink.open(path);
    if (pinned !== undefined) {
      using link = pinned;
      link.replace(program, about);
      return;
    }
    using link = BpfLink.attach(program, target, PROGRAMS[name], about);
    link.pin(path);
  }
}

/** Detaches every pod and removes every map of a state directory; says how many pods there were. */
export function removeState(stateDirectory: string): number {
  const pods = readdirSync(podsDirectory(stateDirectory));
  // Links first: a program without its maps' entries would refuse connections.
  rmSync(podsDirectory(stateDirectory), { recursive: true });
  rmSync(mapsDirectory(stateDirectory), { recursive: true });
  try {
    rmdirSync(stateDirectory);
  } catch (error) {
    // The root of a bpffs stays: whoever mounted it unmounts it.
    if ((error as NodeJS.ErrnoException).code !== "EBUSY") throw error;
  }
  return pods.length;
}

function mapsDirectory(stateDirectory: string): string {
  return `${stateDirectory}/maps`;
}

function podsDirectory(stateDirectory: string): string {
  return `${stateDirectory}/pods`;
}
