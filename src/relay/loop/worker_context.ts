import { IdentityError } from "../../identity/reasons.ts";
import { identityOfLeaf, type PeerIdentity } from "../../identity/verify.ts";
import { openMap } from "../../kernel/maps.ts";
import {
  LogBudget,
  type LogFields,
  LogShares,
  NAMESPACE_LINES,
  ofWorkers,
  Suppressed,
} from "../../log_budget.ts";
import type { BpfMap } from "../../native/bpf_map.ts";
import type { Certificate } from "../../native/certificate.ts";
import { releaseFreedMemory } from "../../native/heap.ts";
import { ScatterBuffer } from "../../native/scatter.ts";
import type { TlsEngine, TlsSession } from "../../native/tls_session.ts";
import { AccessLog } from "./access_log.ts";
import { ConnectionShares } from "./connection_shares.ts";
import { KnownPeers } from "./known_peers.ts";
import type { Load } from "./load.ts";
import type { EventLoop } from "./event_loop.ts";
import type { Denied, WorkerDescription, WorkerEvent } from "../messages.ts";
import { MemoryRelease } from "./memory_release.ts";
import { UnopenedTunnels } from "./unopened.ts";

/**
 * What all connections of one worker share. The buffers are good for one event: nobody keeps
 * anything in them until the next.
 */
export class WorkerContext {
  /**
   * Decrypted records, each at a multiple of GRAIN: room for 64 KiB of ciphertext in the smallest
   * ones.
   */
  readonly plain = new ScatterBuffer(204_800);
  /** Of the tunnels. */
  readonly memory: MemoryRelease;
  readonly unopened = new UnopenedTunnels();
  readonly peers: KnownPeers;
  readonly flows: WorkerMap;
  readonly origins: WorkerMap;
  readonly frontends: WorkerMap;
  readonly backends: WorkerMap;
  readonly affinities: WorkerMap;
  readonly trustDomain: string;
  readonly tunnelIdleMilliseconds: number;
  readonly shares: ConnectionShares;
  /** Of lines about pods, by namespace. */
  readonly logShares: LogShares;
  /** Undefined when nobody wants to know. */
  readonly access: AccessLog | undefined;
  /** Those whose destination cannot be served yet; told when something has changed. */
  readonly postponed = new Set<{ peersChanged(): void }>();
  denied: Denied = { serials: new Set(), identities: new Set(), pods: new Set() };
  /** Connections of this worker by Service endpoint, while they last. */
  readonly outstanding = new Map<string, number>();

  constructor(
    settings: Omit<WorkerDescription, "maps">,
    maps: WorkerMaps,
    readonly loop: EventLoop,
    readonly engine: TlsEngine,
    readonly load: Load,
    readonly report: (event: WorkerEvent) => void,
    /** Milliseconds since 1970, as certificates count; it may jump. */
    readonly wallClock: () => number = Date.now,
  ) {
    this.memory = new MemoryRelease(loop.deadlines, releaseFreedMemory);
    this.peers = new KnownPeers(maps.peers, maps.identities);
    this.flows = maps.flows;
    this.origins = maps.origins;
    this.frontends = maps.frontends;
    this.backends = maps.backends;
    this.affinities = maps.affinities;
    this.trustDomain = settings.trustDomain;
    this.tunnelIdleMilliseconds = settings.tunnelIdleMilliseconds;
    this.shares = new ConnectionShares(settings.maxConnections);
    const lines = ofWorkers(load.workers, NAMESPACE_LINES);
    this.logShares = new LogShares(lines);
    this.#lines = new LogBudget(lines.each);
    const { accessLogEvery } = settings;
    this.access = accessLogEvery === 0 ? undefined : new AccessLog(loop, accessLogEvery, report);
  }

  /** Monotonic milliseconds, of the same clock as the deadlines. */
  now(): number {
    return this.loop.deadlines.now();
  }

  /** Whose a peer's leaf is. Throws an IdentityError. */
  identityOf(leaf: Certificate): PeerIdentity {
    const identity = this.#judged(leaf);
    if (this.#isDenied(leaf, identity)) throw new IdentityError("denied", identity.id);
    return identity;
  }

  /** Whether the deny list names the holder of a leaf that was accepted before. */
  isDenied(leaf: Certificate): boolean {
    return this.#isDenied(leaf, this.#judged(leaf));
  }

  /**
   * Says so when a peer has shown a certificate for an address that the registry gives to somebody
   * else.
   */
  shown(
    { id, addresses }: PeerIdentity,
    address: string,
    registered: string | undefined,
    session: Pick<TlsSession, "peerCertificate">,
  ): void {
    if (registered === undefined || registered === id || !addresses.includes(address)) return;
    using certificate = session.peerCertificate();
    const notAfter = Date.now() + certificate.secondsLeft() * 1000;
    this.report({ type: "shown", shown: { address, identity: id, notAfter } });
  }

  #isDenied(leaf: Certificate, { id, podUid }: PeerIdentity): boolean {
    const { serials, identities, pods } = this.denied;
    return identities.has(id) || (podUid !== undefined && pods.has(podUid)) ||
      (serials.size > 0 && serials.has(leaf.serial()));
  }

  /** A pair of pods meets again and again. */
  #judged(leaf: Certificate): PeerIdentity {
    const digest = leaf.digest();
    let identity = this.#identities.get(digest);
    if (identity === undefined) {
      identity = identityOfLeaf(leaf.leafFacts(), this.trustDomain);
      if (this.#identities.size >= MAX_IDENTITIES) this.#identities.clear();
      this.#identities.set(digest, identity);
    }
    return identity;
  }

  /** By the leaf's digest, of which all that is in it is a function. */
  readonly #identities = new Map<string, PeerIdentity>();

  /**
   * Sends a line about no pod to the agent's log; a flood of them is thinned out, and says how much
   * was left out.
   */
  log(level: LogLevel, message: string, fields: LogFields): void {
    const said = this.#suppressed.say(this.#lines.take(this.now()), fields);
    if (said !== undefined) this.logAlways(level, message, said);
  }

  /** Sends a line that somebody's share was taken from. */
  logAlways(level: LogLevel, message: string, fields: LogFields): void {
    this.report({ type: "log", level, message, fields });
  }

  readonly #lines: LogBudget;
  readonly #suppressed = new Suppressed();
}

type LogLevel = "info" | "warning" | "error";

/** One of the kernel's maps, or what stands for it in a test. */
export type WorkerMap = Pick<BpfMap, "get" | "set" | "add" | "take" | "delete">;

/** The maps that a worker reads and writes, by their names in the kernel. */
export type WorkerMaps = Readonly<Record<keyof WorkerDescription["maps"], WorkerMap>>;

/** The kernel's own, by descriptors that stay their owner's. */
export function openMaps(descriptors: WorkerDescription["maps"]): WorkerMaps {
  return {
    peers: openMap("peers", descriptors.peers),
    identities: openMap("identities", descriptors.identities),
    flows: openMap("flows", descriptors.flows),
    origins: openMap("origins", descriptors.origins),
    frontends: openMap("frontends", descriptors.frontends),
    backends: openMap("backends", descriptors.backends),
    affinities: openMap("affinities", descriptors.affinities),
  };
}

/** Half a kilobyte each. */
const MAX_IDENTITIES = 4_096;
