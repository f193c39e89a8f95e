import type { ClusterObjects } from "../../cluster/cluster.ts";
import { decodeNumber, encodeNumber } from "../../kernel/maps.ts";
import type { Redirector } from "../../kernel/redirector.ts";
import { logger } from "../../log.ts";
import type { RelayWorkers } from "../../relay/workers.ts";
import type { PeerIndex } from "../rules/peer_index.ts";
import type { Refusal } from "../rules/refusal.ts";
import { ServiceIndex } from "../rules/service_index.ts";
import { Frontends } from "./frontends.ts";
import { Pace } from "./pace.ts";
import { Peers } from "./peers.ts";
import { listed, type Repairs, type RoutingProblem } from "./problem.ts";
import { RefusedRanges } from "./refused_ranges.ts";
import { StrictEgress, type StrictEgressOptions } from "./strict_egress.ts";

const log = logger("refusals");

export interface RoutingServices {
  readonly redirector: Redirector;
  readonly workers: Pick<RelayWorkers, "peersChanged" | "peersLeaving">;
  readonly index: PeerIndex;
}

/**
 * What this node's connections are decided by: who is a peer, which Services are redirected, and
 * where it is not known. All of it lies in the kernel's maps.
 */
export class Routing {
  readonly #nodeName: string;
  readonly #index: PeerIndex;
  readonly #serviceIndex: ServiceIndex;
  readonly #state: Redirector["routingState"];
  readonly #refused: RefusedRanges;
  readonly #peers: Peers;
  readonly #frontends: Frontends;
  readonly #strictEgress: StrictEgress;
  readonly #inside: StrictEgressOptions["inside"];
  #unread: ClusterObjects["unread"] = [];
  readonly #pace = { peers: new Pace(), frontends: new Pace(), refused: new Pace() };
  /** What earlier agents have left and nobody asks for is gone. */
  #isPruned = false;

  constructor(nodeName: string, options: StrictEgressOptions, services: RoutingServices) {
    const { redirector, workers, index } = services;
    this.#nodeName = nodeName;
    this.#index = index;
    this.#serviceIndex = new ServiceIndex(nodeName, (address) => index.get(address));
    this.#state = redirector.routingState;
    this.#inside = options.inside;
    this.#refused = new RefusedRanges(redirector.refusedRanges, options.inside);
    this.#peers = new Peers(redirector, workers, index);
    this.#frontends = new Frontends(redirector);
    this.#strictEgress = new StrictEgress(redirector.egressRules, options);
    this.#refused.refuse("start", this.#isKnown() ? [] : [nothingKnown(options)]);
  }

  /** Addresses and ports of Services whose connections are redirected. */
  get frontendCount(): number {
    return this.#frontends.size;
  }

  /**
   * Makes the kernel's maps say what follows from the cluster's objects. What is not known whole is
   * refused first, and let go last; peers come before the frontends that lead to them. Never
   * throws.
   */
  apply(objects: ClusterObjects): void {
    this.#refuseUnread(objects.unread);
    const changes = this.#index.update(objects);
    this.#refused.refuse("registry", this.#index.refusals());
    this.#peers.apply(changes);
    this.#refused.refuse("peers", this.#peers.refusals());
    const moved = changes.filter(({ before, now }) => before?.ready !== now?.ready);
    this.#frontends.apply(
      this.#serviceIndex.update(
        objects.services,
        objects.endpoints,
        objects.nodes.get(this.#nodeName)?.zone,
        new Set(moved.map(({ address }) => address)),
      ),
      (refusals) => this.#refused.refuse("services", refusals),
    );
    this.#strictEgress.apply(objects.services);
    if (objects.complete) this.#settle();
  }

  /**
   * Compares the kernel's maps with what was written there, and writes again what is different.
   * What takes long, in a large cluster, is not done each time, unless `isFull`.
   */
  audit(isFull = false): Repairs {
    const peers = this.#pace.peers.run(isFull, () => this.#peers.audit());
    this.#refused.refuse("peers", this.#peers.refusals());
    const frontends = this.#pace.frontends.run(isFull, () => this.#frontends.audit());
    this.#refused.refuse("services", this.#frontends.refusals());
    const refused = this.#pace.refused.run(isFull, () => this.#refused.audit());
    if (this.#isPruned) this.#refused.release();
    return {
      ...peers,
      ...frontends,
      refused_range: refused ?? 0,
      egress_rule: this.#strictEgress.audit(),
    };
  }

  /**
   * What keeps connections from being encrypted, or from being possible at all; the first ones of
   * many.
   */
  problems(): RoutingProblem[] {
    return listed([
      ...this.#refused.problems(),
      ...this.#frontends.problems(),
      ...this.#strictEgress.problems(),
    ]);
  }

  /** What is in a list that cannot be read may be a peer's. */
  #refuseUnread(unread: ClusterObjects["unread"]): void {
    if (unread === this.#unread) return;
    this.#unread = unread;
    const refusals = unread.filter(({ hidesPeers }) => hidesPeers).map(({ name }) => ({
      where: name,
      message: undefined, // it is a problem of the cluster's
      ranges: this.#inside,
      isWide: true,
    }));
    this.#refused.refuse("unread", refusals);
  }

  #settle(): void {
    if (!this.#isPruned) {
      this.#isPruned = true;
      this.#peers.prune();
      this.#refused.refuse("peers", this.#peers.refusals());
      this.#frontends.prune();
      this.#refused.refuse("services", this.#frontends.refusals());
      this.#refused.refuse("start", []);
      if (!this.#isKnown()) {
        log.info("{where}: its objects have been read whole: no connection is refused for that", {
          where: "cluster",
        });
      }
      this.#state.set(encodeNumber(0), encodeNumber(1));
    }
    this.#refused.release();
  }

  /**
   * Whether an agent has read everything since the maps were made: what they say may be old then,
   * but is whole.
   */
  #isKnown(): boolean {
    const state = this.#state.get(encodeNumber(0));
    return state !== undefined && decodeNumber(state) === 1;
  }
}

function nothingKnown({ inside }: StrictEgressOptions): Refusal {
  return {
    where: "cluster",
    message: "its objects have not been read whole since the node was booted: connections inside " +
      "the cluster are refused until then, but those to known peers",
    ranges: inside,
    isWide: true,
    isUsual: true,
  };
}
