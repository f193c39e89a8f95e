import { readFileSync } from "node:fs";
import { formatAddress, specialAddress } from "../../addresses.ts";
import { SystemError } from "../../native/errno.ts";
import { readLink } from "../../native/file_system.ts";
import { NetworkNamespace } from "../../native/namespace.ts";
import { isIpv4 } from "../../native/socket_address.ts";
import { type Device, TrafficControl } from "../../native/traffic_control.ts";

/** A pod's network namespace, proved to be its own. */
export interface PodNamespace {
  /** The finder's to dispose of. */
  readonly namespace: NetworkNamespace;
  /** What the kernel calls it ("net:[4026531840]"), which names it as long as it is open. */
  readonly identity: string;
  /** The process that stood in it. */
  readonly pid: number;
  /**
   * The pod's addresses: those that were asked for, or the first global one of each family.
   * Canonical text.
   */
  readonly addresses: readonly string[];
  /**
   * Those of them that the namespace's interfaces hold now: a family may be switched off inside.
   */
  readonly held: readonly string[];
}

/**
 * Finds the network namespace of a pod among its processes: the oldest one's that is not the
 * node's, belongs to the node's user namespace (only the container runtime makes such ones for
 * pods), and holds one of the pod's addresses, or any global address while the pod's object names
 * none yet (the kernel knows before the API server). The processes come from the pod's own cgroup,
 * so a thread of ours that passes through a namespace is never among them. Returns the reason when
 * there is none (yet).
 */
export function findNamespace(
  pids: readonly number[],
  addresses: readonly string[],
  procRoot: string,
): PodNamespace | { readonly missing: string } {
  const foreign = nodeNamespaces(procRoot);
  const seen = new Set<string>();
  let owned = 0;
  for (const pid of oldestFirst(pids, procRoot)) {
    const path = `${procRoot}/${pid}/ns/net`;
    const identity = readLink(path);
    if (identity === undefined || foreign.has(identity) || seen.has(identity)) continue;
    seen.add(identity);
    const namespace = open(path);
    if (namespace === undefined) continue;
    if (isInitial(namespace)) {
      owned++;
      // What was opened, not what the path names by now: the process may have ended and its number
      // be reused.
      const own = podAddresses(namespace, addresses);
      if (own.held.length > 0) return { namespace, identity, pid, ...own };
    }
    namespace[Symbol.dispose]();
  }
  if (pids.length === 0) return { missing: "no process runs in the pod's cgroup yet" };
  if (seen.size === 0) {
    return { missing: "all processes of the pod are in the node's network namespace" };
  }
  if (owned === 0) {
    return { missing: "its network namespace belongs to a user namespace that is not the node's" };
  }
  return { missing: `no namespace of the pod holds ${addresses.join(" or ") || "an address"} yet` };
}

/**
 * Whether one of the pod's processes is in the namespace: the one that was seen there first, so
 * that others need not be looked for.
 *
 * @param pids the processes of the pod's cgroup, asked for only if that one has gone.
 */
export function stillInUse(
  { identity, pid }: PodNamespace,
  pids: () => readonly number[],
  procRoot: string,
): boolean {
  const isIn = (each: number) => readLink(`${procRoot}/${each}/ns/net`) === identity;
  return isIn(pid) || pids().some(isIn);
}

/** Those of `addresses`, canonical text, that the namespace's interfaces hold now. */
export function heldOf(namespace: NetworkNamespace, addresses: readonly string[]): string[] {
  const held = new Set(namespace.addresses().map(formatAddress));
  return addresses.filter((address) => held.has(address));
}

/**
 * The addresses at which others may reach the namespace, canonical text: all global ones but those
 * of devices that lead to what is inside of it (a bridge of containers in the pod) or through a
 * tunnel of its own. Throws a SystemError.
 */
export function reachableAt(namespace: NetworkNamespace): string[] {
  using control = namespace.run(() => new TrafficControl());
  const devices = control.devices();
  const isOne = ({ addresses }: Device) => addresses.some(isGlobal);
  if (devices.filter(isOne).length > 1) {
    const kinds = control.kinds();
    return globalOf(devices.filter(({ index }) => !INNER_KINDS.has(kinds.get(index) ?? "")));
  }
  return globalOf(devices);
}

function globalOf(devices: readonly Device[]): string[] {
  return devices.flatMap(({ addresses }) => addresses).filter(isGlobal).map(formatAddress);
}

function isGlobal(address: Uint8Array): boolean {
  return specialAddress(address) === undefined;
}

const INNER_KINDS = new Set(["bridge", "tun", "wireguard"]);

/**
 * The agent's own and, where it can be read, the node's (they differ when the agent has a network
 * of its own).
 */
function nodeNamespaces(procRoot: string): Set<string> {
  return new Set(
    ["self", "1"].flatMap((pid) => readLink(`${procRoot}/${pid}/ns/net`) ?? []),
  );
}

/**
 * Whether its owner is the agent's own user namespace, which is the node's: no other may load eBPF
 * programs.
 */
function isInitial(namespace: NetworkNamespace): boolean {
  try {
    return namespace.owner() === readLink("/proc/self/ns/user");
  } catch (error) {
    if (error instanceof SystemError) return false; // not even seen by us
    throw error;
  }
}

function open(path: string): NetworkNamespace | undefined {
  try {
    return NetworkNamespace.open(path);
  } catch (error) {
    if (error instanceof SystemError) return undefined;
    throw error;
  }
}

/**
 * What the pod's addresses are by this namespace, and which are there: none when it is not the
 * pod's.
 */
function podAddresses(
  namespace: NetworkNamespace,
  wanted: readonly string[],
): Pick<PodNamespace, "addresses" | "held"> {
  if (wanted.length > 0) return { addresses: wanted, held: heldOf(namespace, wanted) };
  const global = namespace.addresses().filter(isGlobal);
  const addresses = [global.find(isIpv4), global.find((address) => !isIpv4(address))]
    .filter((address) => address !== undefined).map(formatAddress);
  return { addresses, held: addresses };
}

/**
 * By start time, field 22 of /proc/<pid>/stat: the sandbox's first process is the pod's, others may
 * be guests.
 */
function oldestFirst(pids: readonly number[], procRoot: string): number[] {
  const started = new Map(pids.map((pid) => [pid, startTime(pid, procRoot)]));
  return [...pids].sort((a, b) => (started.get(a) ?? 0) - (started.get(b) ?? 0));
}

function startTime(pid: number, procRoot: string): number {
  try {
    const stat = readFileSync(`${procRoot}/${pid}/stat`, "utf8");
    // The second field is the command in parentheses and may hold anything: count from behind it.
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
  } catch {
    return Infinity;
  }
}
