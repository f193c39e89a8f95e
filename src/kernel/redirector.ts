/**
 * What the kernel holds of ours: the programs and maps, loaded once per node, and the links that
 * attach the programs to a pod's cgroup. All of it is pinned below the state directory, so it
 * outlives a crash of the agent (redirected connections are then refused, never sent in clear), and
 * a new agent adopts it. The agent holds it open as well, so that it outlives its pins; what is
 * really there, the inspect methods ask the kernel.
 */
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { cgroupId } from "../native/file_system.ts";
import { BpfObject } from "../native/bpf_object.ts";
import type { BpfMap } from "../native/bpf_map.ts";
import { logger } from "../log.ts";
import { DeviceGuard } from "./device_guard.ts";
import type { Fault } from "./fault.ts";
import { GuardCounts } from "./guard_counts.ts";
import { Hold, HOLD_PROGRAMS, removeHolds } from "./hold.ts";
import { type MapName, MAPS, openMap, SOCKET_STORAGES } from "./maps.ts";
import {
  namesIn,
  namespaceTarget,
  openCgroup,
  PinnedLinks,
  type Program,
  type Target,
} from "./pinned_links.ts";
import { KernelRefusals } from "./refusals.ts";

const log = logger("kernel");

/** Program to attach type (enum bpf_attach_type, linux/bpf.h). */
export const PROGRAMS = {
  connect4: 10,
  connect6: 11,
  connect4_strict: 10,
  connect6_strict: 11,
  ...HOLD_PROGRAMS,
  note_flow: 3,
  guard_egress: 1,
  guard_strict: 1,
  getpeername4: 29,
  getpeername6: 30,
  getsockname4: 31,
  getsockname6: 32,
  strict_inbound: 36,
  guard_device: 0,
} as const;

type ProgramName = keyof typeof PROGRAMS;

/**
 * What is attached to a pod's cgroup: the link's name and the program, by whether egress is strict.
 * In this order, and detached in the reverse one: a connection that is redirected while nothing
 * notes where it goes is lost.
 */
const LINKS: readonly (readonly [string, ProgramName, ProgramName])[] = [
  ...(["note_flow", "getpeername4", "getpeername6", "getsockname4", "getsockname6"] as const).map(
    (name) => [name, name, name] as const,
  ),
  ["connect4", "connect4", "connect4_strict"],
  ["connect6", "connect6", "connect6_strict"],
  ["guard", "guard_egress", "guard_strict"],
];

/** The link of `strict_inbound`, which belongs to a network namespace. */
const INBOUND_LINK = "strict_inbound";

/** The links of the programs that decide where connections go. */
const REDIRECTING_LINKS = ["connect4", "connect6", "guard", INBOUND_LINK];

/** Every link that a pod may have, and its attach type. */
const LINK_TYPES = new Map<string, number>([
  ...LINKS.map(([link, program]) => [link, PROGRAMS[program]] as const),
  [INBOUND_LINK, PROGRAMS[INBOUND_LINK]],
]);

const MAP_NAMES: readonly string[] = [...Object.keys(MAPS), ...SOCKET_STORAGES];

export class Redirector implements Disposable {
  readonly peers: BpfMap;
  readonly identities: BpfMap;
  readonly slices: BpfMap;
  readonly pods: BpfMap;
  readonly hold: Hold;
  readonly flows: BpfMap;
  readonly origins: BpfMap;
  readonly frontends: BpfMap;
  readonly backends: BpfMap;
  readonly affinities: BpfMap;
  readonly egressRules: BpfMap;
  readonly nodeAddresses: BpfMap;
  readonly refusals: KernelRefusals;
  readonly guardCounts: GuardCounts;
  readonly refusedRanges: BpfMap;
  readonly routingState: BpfMap;
  /** By a socket's descriptor. */
  readonly listeners: BpfMap;
  readonly deviceGuard: DeviceGuard;
  readonly #object: BpfObject;
  readonly #programs = new Map<ProgramName, Program>();
  /** By the pod's UID. */
  readonly #links = new Map<string, PinnedLinks>();
  /**
   * By the pod's UID: its cgroup, held open, since inotify tells whoever watches each time that one
   * is opened.
   */
  readonly #cgroups = new Map<string, Target & Disposable>();

  /**
   * Loads `objectFile`; `stateDirectory` lies on a bpffs. Maps that are pinned there are taken over
   * if they fit.
   */
  constructor(objectFile: string, readonly stateDirectory: string) {
    mkdirSync(mapsDirectory(stateDirectory), { recursive: true, mode: 0o700 });
    mkdirSync(podsDirectory(stateDirectory), { recursive: true, mode: 0o700 });
    this.#object = new BpfObject(
      objectFile,
      MAP_NAMES,
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
    this.slices = open("slices");
    this.pods = open("pods");
    this.flows = open("flows");
    this.origins = open("origins");
    this.frontends = open("frontends");
    this.backends = open("backends");
    this.affinities = open("affinities");
    this.egressRules = open("egress_rules");
    this.nodeAddresses = open("node_addresses");
    this.refusals = new KernelRefusals(open("kernel_refusals"));
    this.guardCounts = new GuardCounts(open("guard_counts"));
    this.refusedRanges = open("refused_ranges");
    this.routingState = open("routing_state");
    this.listeners = open("listeners");
    this.deviceGuard = new DeviceGuard(this.#program("guard_device"), open("guarded_devices"));
    this.hold = new Hold(
      holdsDirectory(stateDirectory),
      open("decided"),
      (name) => this.#program(name),
    );
    for (const uid of this.attached()) this.#linksOf(uid);
  }

  /**
   * Attaches every program to a pod's cgroup, or replaces those that are attached already, also by
   * an earlier agent, and detaches what another version has attached beside them; mends what
   * {@link inspect} names. `strictEgress` refuses plain connections inside the cluster from now on,
   * whether there is an agent or not. Throws a SystemError: a pod that had no programs has none
   * then, one that had some keeps them, since without them it would send in clear.
   */
  attach(uid: string, cgroup: string, strictEgress: boolean): void {
    const links = this.#linksOf(uid);
    const isNew = links.size === 0;
    try {
      const target = this.#cgroup(uid, cgroup);
      for (const [link, usual, strict] of LINKS) {
        links.attach(link, this.#program(strictEgress ? strict : usual), target);
      }
      for (const link of links.strangers()) links.remove(link);
      this.hold.letGo(cgroup); // its own programs decide from now on
    } catch (error) {
      if (isNew) this.detach(uid);
      throw error;
    }
  }

  /**
   * What is not attached to the pod's cgroup, as the kernel says now, and what would not be without
   * this process. A cgroup that was made anew under the same path has nothing attached. Throws a
   * SystemError when the cgroup is gone.
   *
   * @param isThorough also by which links, and what is pinned under their names.
   */
  inspect(uid: string, cgroup: string, strictEgress: boolean, isThorough = true): Fault[] {
    const links = this.#linksOf(uid);
    const target = this.#cgroup(uid, cgroup);
    const programs = LINKS.map(([link, usual, strict]) =>
      [link, this.#program(strictEgress ? strict : usual)] as const
    );
    if (!isThorough) return links.glance(programs, target);
    return programs.flatMap(([link, program]) => links.inspect(link, program, target, "link"));
  }

  /**
   * From now on the pod's network namespace, an open descriptor, refuses new connections that are
   * neither its tunnel's nor its own nor its node's; or it takes all again. Mends what
   * {@link inspectStrictInbound} names. Throws a SystemError.
   */
  setStrictInbound(uid: string, namespace: number, strict: boolean): void {
    const links = this.#linksOf(uid);
    if (!strict) return links.remove(INBOUND_LINK);
    // An earlier one may belong to an earlier sandbox's namespace. The new one is in force before
    // that goes.
    const target = namespaceTarget(namespace, `${uid}'s network namespace`);
    links.attach(INBOUND_LINK, this.#program(INBOUND_LINK), target);
  }

  /**
   * Whether the pod's network namespace, an open descriptor, refuses what {@link setStrictInbound}
   * was told last.
   */
  inspectStrictInbound(uid: string, namespace: number, strict: boolean): Fault[] {
    const links = this.#linksOf(uid);
    if (!strict && !links.has(INBOUND_LINK)) return [];
    const target = namespaceTarget(namespace, `${uid}'s network namespace`);
    if (strict) {
      return links.inspect(INBOUND_LINK, this.#program(INBOUND_LINK), target, INBOUND_LINK);
    }
    return [{ kind: INBOUND_LINK, what: `${target.about} refuses connections it should take` }];
  }

  /**
   * Sends a pod's connections nowhere else any more, and refuses none: its next connection is plain
   * TCP. What the applications are told of connections through the relay stays true; {@link detach}
   * ends that.
   */
  release(uid: string): void {
    const links = this.#linksOf(uid);
    for (const link of REDIRECTING_LINKS) links.remove(link);
  }

  /**
   * Detaches a pod's programs at once, whoever holds them open: its next connection is plain TCP.
   */
  detach(uid: string): void {
    const links = this.#linksOf(uid);
    this.#links.delete(uid);
    this.#forgetCgroup(uid);
    links.end();
  }

  /** The pods that have programs attached, also by an earlier agent. */
  attached(): string[] {
    return namesIn(podsDirectory(this.stateDirectory));
  }

  /**
   * Which maps the next agent would not find, or find another in the place of. Throws a SystemError
   * when they cannot be looked at.
   */
  inspectMaps(): Fault[] {
    return MAP_NAMES.filter((name) => !this.#object.isMapPinned(name)).map((name) => ({
      kind: "pin",
      what: `${mapsDirectory(this.stateDirectory)}/${name} is missing or something else`,
    }));
  }

  /** Mends what {@link inspectMaps} names. Throws a SystemError. */
  pinMaps(): void {
    mkdirSync(mapsDirectory(this.stateDirectory), { recursive: true, mode: 0o700 });
    for (const name of MAP_NAMES) this.#object.pinMap(name);
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
    for (const links of this.#links.values()) links[Symbol.dispose]();
    for (const uid of [...this.#cgroups.keys()]) this.#forgetCgroup(uid);
    this.hold[Symbol.dispose]();
    this.#object[Symbol.dispose]();
  }

  #program(name: ProgramName): Program {
    const known = this.#programs.get(name);
    if (known !== undefined) return known;
    const program = {
      name,
      descriptor: this.#object.program(name),
      id: this.#object.programId(name),
      attachType: PROGRAMS[name],
    };
    this.#programs.set(name, program);
    return program;
  }

  /**
   * The cgroup that is there now: one that was made anew has the path of the old one. Throws a
   * SystemError.
   */
  #cgroup(uid: string, path: string): Target {
    const known = this.#cgroups.get(uid);
    if (known !== undefined && known.id === cgroupId(path)) return known;
    this.#forgetCgroup(uid);
    const target = openCgroup(path);
    this.#cgroups.set(uid, target);
    return target;
  }

  #forgetCgroup(uid: string): void {
    this.#cgroups.get(uid)?.[Symbol.dispose]();
    this.#cgroups.delete(uid);
  }

  #linksOf(uid: string): PinnedLinks {
    const known = this.#links.get(uid);
    if (known !== undefined) return known;
    const links = new PinnedLinks(`${podsDirectory(this.stateDirectory)}/${uid}`, LINK_TYPES);
    this.#links.set(uid, links);
    return links;
  }
}

/**
 * Detaches every pod and removes every map; the state directory is empty then. Says how many pods
 * there were.
 */
export function removeState(stateDirectory: string): number {
  const pods = readdirSync(podsDirectory(stateDirectory));
  // Links first: a program without its maps' entries would refuse connections.
  for (const uid of pods) {
    new PinnedLinks(`${podsDirectory(stateDirectory)}/${uid}`, LINK_TYPES).end();
  }
  rmSync(podsDirectory(stateDirectory), { recursive: true });
  removeHolds(holdsDirectory(stateDirectory));
  rmSync(mapsDirectory(stateDirectory), { recursive: true, force: true });
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
