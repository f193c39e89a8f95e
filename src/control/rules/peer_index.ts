import type { ClusterObjects } from "../../cluster/cluster.ts";
import type { Pod } from "../../cluster/objects.ts";
import { compare } from "../../order.ts";
import { hasEnded } from "./desired.ts";
import type { Peer, RegistryPart } from "../../cluster/registry.ts";
import type { ShownCertificate } from "../../relay/messages.ts";
import type { Refusal } from "./refusal.ts";
import { REGISTRY_LIMITS, RegistryBounds } from "./registry_bounds.ts";
import { type Contradiction, RegistryContradictions } from "./registry_contradictions.ts";

/** What has become of an address. */
export interface PeerChange {
  readonly address: string;
  readonly before: Peer | undefined;
  readonly now: Peer | undefined;
}

/**
 * Two or more registry entries that claim one address; see {@link PeerIndex} for which is believed.
 */
export interface AddressConflict {
  readonly address: string;
  readonly winner: Peer;
  readonly losers: readonly Peer[];
  /** Why the winner is the winner. */
  readonly reason: string;
}

/**
 * Who is behind which address, by the registry: all nodes' pods, our own too. What it says is a
 * function of the parts that are there and of the pods, whatever came before; only the work follows
 * the changes, so that one among 150,000 peers costs little. When B has taken over A's address, A's
 * late removal removes nothing of B's.
 *
 * When several registry entries claim one address (a reused address, and an entry that a dead node
 * never removed), the address stays a peer in any case, because dropping it would let plaintext
 * out. Believed is the claim that the pod objects support best, among equals the one for which a
 * certificate was seen, of several the one that lasts longest: a signer gives none for an address
 * that another live pod has. Among equals again it is the smallest UID, so that every agent chooses
 * the same. A wrong choice costs a refused handshake, which shows the right one, never a wrong
 * peer.
 */
export class PeerIndex {
  readonly #nodeName: string;
  readonly #bounds: RegistryBounds;
  readonly #contradictions: RegistryContradictions;
  /** As they were published, and as far as they are believed. */
  #published = new Map<string, RegistryPart>();
  #parts = new Map<string, RegistryPart>();
  readonly #claims = new Map<string, Claimed>();
  readonly #conflicts = new Map<string, AddressConflict>();
  /** By address: the certificate that has decided, or is to decide, whose it is. */
  readonly #shown = new Map<string, ShownCertificate>();

  constructor(nodeName: string, limits = REGISTRY_LIMITS) {
    this.#nodeName = nodeName;
    this.#contradictions = new RegistryContradictions(nodeName);
    this.#bounds = new RegistryBounds(limits);
  }

  get size(): number {
    return this.#claims.size;
  }

  get(address: string): Peer | undefined {
    const claimed = this.#claims.get(address);
    return claimed instanceof Contest ? claimed.winner : claimed;
  }

  *[Symbol.iterator](): Generator<Peer> {
    for (const claimed of this.#claims.values()) {
      yield claimed instanceof Contest ? claimed.winner : claimed;
    }
  }

  conflicts(): AddressConflict[] {
    return [...this.#conflicts.values()];
  }

  /** What was published and is not believed, because it is about somebody else's address. */
  contradictions(): readonly Contradiction[] {
    return this.#contradictions.list();
  }

  /** Whether most nodes' pods have addresses of their nodes' podCIDRs. */
  get usesPodCidrs(): boolean {
    return this.#contradictions.usesPodCidrs;
  }

  /** The addresses of our own pods that the other nodes' agents do not believe, and why. */
  doubted(): ReadonlyMap<string, string> {
    return this.#contradictions.doubted();
  }

  /** Where there may be peers that are not among these: what was published and is not believed. */
  refusals(): Refusal[] {
    return this.#bounds.refusals();
  }

  /**
   * Takes over the state. A part that is the same object as before has not changed. While
   * `complete` is false, parts may be missing: none is taken for gone.
   */
  update(objects: ClusterObjects): PeerChange[] {
    const { registry, pods, complete } = objects;
    const before = new Map<string, Peer | undefined>();
    const note = (address: string) => {
      if (!before.has(address)) before.set(address, this.get(address));
    };
    const published = new Map(registry.map((part) => [part.slice, part]));
    if (!complete) {
      for (const [slice, part] of this.#published) {
        if (!published.has(slice)) published.set(slice, part);
      }
    }
    this.#published = published;
    const believed = this.#contradictions.apply(published, objects);
    const parts = this.#bounds.apply(believed.values(), this.#contradictions.foreign);
    for (const [slice, part] of this.#parts) {
      if (parts.get(slice) !== part) this.#remove(part, note);
    }
    for (const [slice, part] of parts) {
      if (this.#parts.get(slice) !== part) this.#add(part, note);
    }
    this.#parts = parts;

    for (const address of this.#conflicts.keys()) note(address); // the pods may decide otherwise now
    const podByUid = new Map(pods.map((pod) => [pod.uid, pod]));
    const changes: PeerChange[] = [];
    for (const [address, old] of before) {
      this.#settle(address, podByUid);
      const now = this.get(address);
      if (!isSame(old, now)) changes.push({ address, before: old, now });
    }
    return changes;
  }

  /**
   * Takes note of a certificate that was verified. True when it may decide whose its address is: at
   * the next {@link update}.
   */
  shown(certificate: ShownCertificate): boolean {
    const { address, identity, notAfter } = certificate;
    const contest = this.#claims.get(address);
    if (!(contest instanceof Contest)) return false;
    const identities = new Set([...contest.claims].map((claim) => claim.identity));
    const before = this.#shown.get(address);
    if (!identities.has(identity) || identity === contest.winner.identity) return false;
    if (before !== undefined && identities.has(before.identity) && before.notAfter >= notAfter) {
      return false;
    }
    this.#shown.delete(address);
    this.#shown.set(address, certificate);
    const [oldest] = this.#shown.keys();
    if (this.#shown.size > MOST_SHOWN && oldest !== undefined) this.#shown.delete(oldest);
    return true;
  }

  #remove(part: RegistryPart, note: (address: string) => void): void {
    for (const peer of part.peers) {
      const claimed = this.#claims.get(peer.address);
      note(peer.address);
      if (claimed === peer) this.#claims.delete(peer.address);
      else if (claimed instanceof Contest) claimed.claims.delete(peer);
    }
  }

  #add(part: RegistryPart, note: (address: string) => void): void {
    for (const peer of part.peers) {
      const claimed = this.#claims.get(peer.address);
      note(peer.address);
      if (claimed === undefined) this.#claims.set(peer.address, peer);
      else if (claimed instanceof Contest) claimed.claims.add(peer);
      else this.#claims.set(peer.address, new Contest(claimed, peer));
    }
  }

  /** Decides a contest, and ends it when one claim or none is left. */
  #settle(address: string, podByUid: ReadonlyMap<string, Pod>): void {
    const contest = this.#claims.get(address);
    this.#conflicts.delete(address);
    if (!(contest instanceof Contest)) return;
    const [first, ...more] = contest.claims;
    if (first === undefined) this.#claims.delete(address);
    else if (more.length === 0) this.#claims.set(address, first);
    if (first === undefined || more.length === 0) return;

    const support = (peer: Peer) =>
      supportOf(podByUid.get(peer.uid), address, peer.node === this.#nodeName);
    const shown = this.#shown.get(address)?.identity;
    const isShown = (peer: Peer) => Number(peer.identity === shown);
    const [winner = first, ...losers] = [first, ...more].sort((a, b) =>
      support(b) - support(a) || isShown(b) - isShown(a) || Number(b.ready) - Number(a.ready) ||
      compare(a.uid, b.uid) || compare(a.identity, b.identity)
    );
    contest.winner = winner;
    // A pod in two of its node's slices is no rival.
    const rivals = losers.filter(({ uid, identity, node }) =>
      uid !== winner.uid || identity !== winner.identity || node !== winner.node
    );
    const [second] = rivals;
    if (second === undefined) return;
    const [best, next] = [support(winner), support(second)];
    this.#conflicts.set(address, {
      address,
      winner,
      losers: rivals,
      reason: best > next
        ? `its pod is ${SUPPORT[best]}, the next one's ${SUPPORT[next]}`
        : isShown(winner) > isShown(second)
        ? "a certificate for the address was seen"
        : "nothing tells them apart: the smallest UID",
    });
  }
}

const MOST_SHOWN = 4_096;

/** One claim, as almost always, or several. */
type Claimed = Peer | Contest;

class Contest {
  readonly claims: Set<Peer>;

  constructor(public winner: Peer, other: Peer) {
    this.claims = new Set([winner, other]);
  }
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

function isSame(a: Peer | undefined, b: Peer | undefined): boolean {
  return a === b || (a !== undefined && a.identity === b?.identity && a.uid === b.uid &&
    a.pod === b.pod && a.node === b.node && a.slice === b.slice && a.ready === b.ready);
}
