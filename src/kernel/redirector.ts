/**
 * What the kernel holds of ours: the programs and maps, loaded once per node, and the links that attach the
 * programs to a pod's cgroup. All of it is pinned below the state directory, so it outlives a crash of the
 * agent (redirected connections are then refused, never sent in clear), and a new agent adopts it.
 */
import { existsSync, mkdirSync, readdirSync, rmdirSync, rmSync } from "node:fs";
import { BpfLink, BpfObject } from "../native/bpf_object.ts";
import type { BpfMap } from "../native/bpf_map.ts";
import { logger } from "../log.ts";
import { Hold, HOLD_PROGRAMS } from "./hold.ts";
import { type MapName, MAPS, openMap, SOCKET_STORAGE } from "./maps.ts";
import { attachPinned } from "./pinned_link.ts";

const log = logger("kernel");

/** Program to attach type (enum bpf_attach_type, linux/bpf.h). */
export const PROGRAMS = {
  connect4: 10,
  connect6: 11,
  connect4_strict: 10,
  connect6_strict: 11,
  ...HOLD_PROGRAMS,
  note_flow: 3,
  getpeername4: 29,
  getpeername6: 30,
  getsockname4: 31,
  getsockname6: 32,
  strict_inbound: 36,
} as const;

type ProgramName = keyof typeof PROGRAMS;

/** What is attached to a pod's cgroup: the link's name and the program, by whether egress is strict. */
const LINKS: readonly (readonly [string, ProgramName, ProgramName])[] = [
  ["connect4", "connect4", "connect4_strict"],
  ["connect6", "connect6", "connect6_strict"],
  ...(["note_flow", "getpeername4", "getpeername6", "getsockname4", "getsockname6"] as const).map(
    (name) => [name, name, name] as const,
  ),
];

/** The link of `strict_inbound`, which belongs to a network namespace. */
const INBOUND_LINK = "strict_inbound";

const LINK_NAMES = new Set([...LINKS.map(([link]) => link), INBOUND_LINK]);

export class Redirector implements Disposable {
  readonly peers: BpfMap;
  readonly identities: BpfMap;
  readonly pods: BpfMap;
  readonly hold: Hold;
  readonly flows: BpfMap;
  readonly origins: BpfMap;
  readonly frontends: BpfMap;
  readonly backends: BpfMap;
  readonly affinities: BpfMap;
  readonly egressRules: BpfMap;
  readonly nodeAddresses: BpfMap;
  readonly refusedRanges: BpfMap;
  readonly routingState: BpfMap;
  readonly #object: BpfObject;

  /** Loads `objectFile`; `stateDirectory` lies on a bpffs. Maps that are pinned there are taken over if they fit. */
  constructor(objectFile: string, readonly stateDirectory: string) {
    mkdirSync(mapsDirectory(stateDirectory), { recursive: true, mode: 0o700 });
    mkdirSync(podsDirectory(stateDirectory), { recursive: true, mode: 0o700 });
    this.#object = new BpfObject(
      objectFile,
      [...Object.keys(MAPS), SOCKET_STORAGE],
      mapsDirectory(stateDirectory),
    );
    const { misfits } = this.#object;
    if (misfits.length > 0) {
      // Pods that are attached stay as they are, held, until they are attached to the new ones.
      log.warn("another version's maps are replaced, since some do not fit: {maps}", {
        maps: misfits.join(", "),
      });
    }
    const open = (name: MapName) => openMap(name, this.#object.map(name));
    this.peers = open("peers");
    this.identities = open("identities");
    this.pods = open("pods");
    this.flows = open("flows");
    this.origins = open("origins");
    this.frontends = open("frontends");
    this.backends = open("backends");
    this.affinities = open("affinities");
    this.egressRules = open("egress_rules");
    this.nodeAddresses = open("node_addresses");
    this.refusedRanges = open("refused_ranges");
    this.routingState = open("routing_state");
    this.hold = new Hold(
      holdsDirectory(stateDirectory),
      open("decided"),
      (name) => this.#object.program(name),
    );
  }

  /**
   * Attaches every program to a pod's cgroup, or replaces those that are attached already, also by an earlier
   * agent, and detaches what another version has attached beside them. `strictEgress` refuses plain connections
   * inside the cluster from now on, whether there is an agent or not. Throws a SystemError: a pod that had no
   * programs has none then, one that had some keeps them, since without them it would send in clear.
   */
  attach(uid: string, cgroup: string, strictEgress: boolean): void {
    const directory = `${podsDirectory(this.stateDirectory)}/${uid}`;
    const isNew = !existsSync(directory);
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    try {
      for (const [link, usual, strict] of LINKS) {
        const name = strictEgress ? strict : usual;
        const program = this.#object.program(name);
        attachPinned(program, PROGRAMS[name], cgroup, `${directory}/${link}`);
      }
      for (const link of readdirSync(directory)) {
        if (!LINK_NAMES.has(link)) rmSync(`${directory}/${link}`);
      }
      this.hold.letGo(cgroup); // its own programs decide from now on
    } catch (error) {
      if (isNew) this.detach(uid);
      throw error;
    }
  }

  /**
   * From now on the pod's network namespace, an open descriptor, refuses new connections that are neither its tunnel's nor
   * its own nor its node's; or it takes all again. Throws a SystemError.
   */
  setStrictInbound(uid: string, namespace: number, strict: boolean): void {
    const path = `${podsDirectory(this.stateDirectory)}/${uid}/${INBOUND_LINK}`;
    if (!strict) return rmSync(path, { force: true });
    // An earlier one may belong to an earlier sandbox's namespace. The new one is in force before that goes.
    const program = this.#object.program("strict_inbound");
    using link = BpfLink.attach(program, namespace, PROGRAMS.strict_inbound, `${uid}'s namespace`);
    rmSync(path, { force: true });
    link.pin(path);
  }

  /** Detaches a pod's programs: its next connection is plain TCP. */
  detach(uid: string): void {
    rmSync(`${podsDirectory(this.stateDirectory)}/${uid}`, { recursive: true, force: true });
  }

  /** The pods that have programs attached, also by an earlier agent. */
  attached(): string[] {
    return readdirSync(podsDirectory(this.stateDirectory));
  }

  /** Of the maps that the relay workers use. Lent. */
  descriptors() {
    return {
      peers: this.peers.descriptor,
      identities: this.identities.descriptor,
      flows: this.flows.descriptor,
      origins: this.origins.descriptor,
      frontends: this.frontends.descriptor,
      backends: this.backends.descriptor,
      affinities: this.affinities.descriptor,
    };
  }

  /** Gives up the descriptors; what is pinned stays in force. */
  [Symbol.dispose](): void {
    this.#object[Symbol.dispose]();
  }
}

/** Detaches every pod and removes every map of a state directory; says how many pods there were. */
export function removeState(stateDirectory: string): number {
  const pods = readdirSync(podsDirectory(stateDirectory));
  // Links first: a program without its maps' entries would refuse connections.
  rmSync(podsDirectory(stateDirectory), { recursive: true });
  rmSync(holdsDirectory(stateDirectory), { recursive: true, force: true });
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

function holdsDirectory(stateDirectory: string): string {
  return `${stateDirectory}/holds`;
}
