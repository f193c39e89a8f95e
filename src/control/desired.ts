import { parseAddress, specialAddress } from "../addresses.ts";
import { ANNOTATION } from "../constants.ts";
import { spiffeId } from "../identity/spiffe.ts";
import { isPodUid, quoted } from "../names.ts";
import { type ClusterObjects, CONFIG_HASH_ANNOTATION, type Pod } from "./cluster/objects.ts";
import { entriesOf, type RefusedEntry, type RegistryEntry } from "./registry.ts";

/** A local pod that is to be enrolled. */
export interface WantedEnrolment {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount: string;
  /** SPIFFE ID. */
  readonly identity: string;
  /** Canonical text; empty until the pod has one, and the enrolment waits so long. */
  readonly addresses: readonly string[];
  /**
   * The UIDs by which the pod's cgroup may be named, best first. Candidates only: a static pod's comes from
   * an annotation that a user can write, so a cgroup and its network namespace count as the pod's only
   * when the namespace holds the pod's address.
   */
  readonly cgroupUids: readonly string[];
}

/** An annotated local pod that cannot be enrolled. */
export interface RefusedPod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly reason: string;
}

/** Who is expected behind an address. The handshake decides whether it is so. */
export interface Peer {
  /** Canonical text. */
  readonly address: string;
  /** SPIFFE ID. */
  readonly identity: string;
  readonly uid: string;
  /** `namespace/name`. */
  readonly pod: string;
  readonly node: string;
}

/** Two or more registry entries that claim one address; see `desiredState` for which is believed. */
export interface AddressConflict {
  readonly address: string;
  readonly winner: Peer;
  readonly losers: readonly Peer[];
  /** Why the winner is the winner. */
  readonly reason: string;
}

/** What the agent works towards. */
export interface Desired {
  /** By pod UID. */
  readonly enrolments: Map<string, WantedEnrolment>;
  readonly refused: RefusedPod[];
  /** By canonical address; all nodes' pods, our own too. */
  readonly peers: Map<string, Peer>;
  readonly conflicts: AddressConflict[];
  readonly refusedEntries: RefusedEntry[];
}

/**
 * What should be, given everything that is known. Computed from the whole state and never from a change,
 * so no order of events, and no late or repeated one, can leave a trace in it: when B has taken over A's
 * address, A's late removal removes nothing of B's.
 *
 * When several registry entries claim one address (a reused address, and an entry that a dead node never
 * removed), the address stays a peer in any case, because dropping it would let plaintext out. Believed is
 * the claim that the pod objects support best, and among equals the smallest UID, so that every agent
 * chooses the same. A wrong choice costs a refused handshake, never a wrong peer.
 */
export function desiredState(
  objects: ClusterObjects,
  nodeName: string,
  trustDomain: string,
): Desired {
  const enrolments = new Map<string, WantedEnrolment>();
  const refused: RefusedPod[] = [];
  const uids = new Set(objects.pods.map((pod) => pod.uid));
  for (const pod of objects.pods) {
    if (pod.nodeName !== nodeName || hasEnded(pod)) continue;
    const wish = pod.annotations[ANNOTATION];
    if (wish === undefined || wish === "false") continue;
    const { uid, namespace, name, serviceAccount, addresses } = pod;
    const reason = refusal(pod, wish);
    if (reason !== undefined) {
      refused.push({ uid, namespace, name, reason });
      continue;
    }
    const identity = spiffeId(trustDomain, namespace, serviceAccount);
    const cgroupUids = cgroupUidsOf(pod, uids);
    enrolments.set(uid, {
      uid,
      namespace,
      name,
      serviceAccount,
      identity,
      addresses,
      cgroupUids,
    });
  }
  const { entries, refused: refusedEntries } = entriesOf(objects.registry, trustDomain);
  return { enrolments, refused, refusedEntries, ...peersOf(entries, objects.pods, nodeName) };
}

/** A pod whose containers will not run again; its address may be another's by now. */
function hasEnded(pod: Pod): boolean {
  return pod.phase === "Succeeded" || pod.phase === "Failed";
}

function refusal(pod: Pod, wish: string): string | undefined {
  if (wish !== "true") {
    return `annotation ${ANNOTATION} must be "true" or "false", not ${quoted(wish, 40)}`;
  }
  if (pod.hostNetwork) return "hostNetwork: the pod has no network of its own";
  for (const address of pod.addresses) {
    const special = specialAddress(parseAddress(address));
    if (special !== undefined) return `its address ${address} is ${special}`;
  }
  return undefined;
}

/** A static pod's cgroup has the UID that kubelet derived from the manifest, not the mirror pod's. */
function cgroupUidsOf(pod: Pod, uids: Set<string>): string[] {
  const hash = pod.annotations[CONFIG_HASH_ANNOTATION];
  // Naming another pod's UID there would be asking for that pod's cgroup.
  if (hash === undefined || !isPodUid(hash) || uids.has(hash)) return [pod.uid];
  return [pod.uid, hash];
}

function peersOf(
  entries: RegistryEntry[],
  pods: readonly Pod[],
  nodeName: string,
): Pick<Desired, "peers" | "conflicts"> {
  const podByUid = new Map(pods.map((pod) => [pod.uid, pod]));
  const claims = new Map<string, Claim[]>();
  for (const { addresses, uid, identity, namespace, name, node } of entries) {
    for (const address of addresses) {
      const support = supportOf(podByUid.get(uid), address, node === nodeName);
      const peer = { address, identity, uid, pod: `${namespace}/${name}`, node };
      const rivals = claims.get(address);
      if (rivals === undefined) claims.set(address, [{ peer, support }]);
      else rivals.push({ peer, support });
    }
  }
  const peers = new Map<string, Peer>();
  const conflicts: AddressConflict[] = [];
  for (const [address, [first, ...others]] of claims) {
    if (first === undefined) continue;
    // Entries are sorted by UID and the sort is stable: among equals the smallest UID stays first.
    const [winner = first, ...losers] = [first, ...others].sort((a, b) => b.support - a.support);
    peers.set(address, winner.peer);
    const [second] = losers;
    if (second === undefined) continue;
    conflicts.push({
      address,
      winner: winner.peer,
      losers: losers.map(({ peer }) => peer),
      reason: winner.support > second.support
        ? `its pod is ${SUPPORT[winner.support]}, the next one's ${SUPPORT[second.support]}`
        : "nothing tells them apart: the smallest UID",
    });
  }
  return { peers, conflicts };
}

interface Claim {
  readonly peer: Peer;
  /** Index in `SUPPORT`. */
  readonly support: number;
}

/** How well the pod objects support a claim, best last. */
const SUPPORT = [
  "contradicted", // its pod has ended, has another address, or is gone from our node, where we see every pod
  "not visible here", // another node's, which is no evidence against it
  "being deleted",
  "running",
] as const;

function supportOf(pod: Pod | undefined, address: string, isLocal: boolean): number {
  if (pod === undefined) return SUPPORT.indexOf(isLocal ? "contradicted" : "not visible here");
  if (hasEnded(pod) || !pod.addresses.includes(address)) return SUPPORT.indexOf("contradicted");
  return SUPPORT.indexOf(pod.deleting ? "being deleted" : "running");
}
