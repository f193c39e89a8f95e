import { errorText } from "../error_text.ts";
import { parseAddress } from "../addresses.ts";
import { NetworkNamespace } from "../native/namespace.ts";
import { Socket } from "../native/socket.ts";
import type { Endpoint } from "../native/socket_address.ts";
import type { Expiring } from "./loop/deadlines.ts";
import { Listener } from "./loop/listener.ts";
import type { WorkerContext } from "./loop/worker_context.ts";
import type {
  ConnectionReport,
  PassedConnection,
  PodDescription,
  ProofResult,
  WorkerCommand,
} from "./messages.ts";
import { acceptInbound } from "./stream/accept_inbound.ts";
import { acceptOutbound } from "./stream/accept_outbound.ts";
import { RelayPod } from "./stream/pod.ts";
import { prove } from "./stream/proof.ts";
import { NO_TRAFFIC, sumOf } from "./traffic.ts";

const DRAIN_POLL_MILLISECONDS = 50;

/** Between two reviews of the open streams: a stream ends within a minute of its peer's leaving. */
const REVIEW_MILLISECONDS = 20_000;

/** How many a worker lists. */
const MAX_CONNECTIONS = 1_000;

/** The enrolled pods of one worker and the commands about them. */
export class Relay implements Expiring {
  readonly #context: WorkerContext;
  readonly #pods = new Map<number, EnrolledPod>();
  #past = NO_TRAFFIC;
  #isReviewDue = false;

  constructor(
    context: WorkerContext,
    readonly namespaceOf: (pod: PodDescription) => Pick<NetworkNamespace, "run"> = lentNamespace,
  ) {
    this.#context = context;
  }

  /** A command that fails must not take the worker, and so the whole node, with it. */
  tryToObey(command: WorkerCommand): void {
    try {
      this.#obey(command);
    } catch (error) {
      const reason = errorText(error);
      this.#context.log("error", `the command ${command.type} failed: ${reason}`, {
        reason: "command",
      });
    }
  }

  #obey(command: WorkerCommand): void {
    switch (command.type) {
      case "enrol":
        return this.#enrol(command);
      case "take":
        return this.#take(command.connection);
      case "renew":
        return this.#pods.get(command.relay)?.pod.renew(command.credentials);
      case "adjust":
        return this.#pods.get(command.relay)?.pod.adjust(command.settings);
      case "connections":
        return this.#context.report({
          type: "connections",
          id: command.id,
          ...this.#connections(),
        });
      case "withdraw":
        return this.#withdraw(command.relay, command.drainMilliseconds);
      case "peers":
        this.#context.peers.changed();
        this.#reviewSoon();
        for (const { pod } of this.#pods.values()) {
          pod.pool.retain((peer) => this.#context.peers.isCurrent(peer));
        }
        for (const connection of [...this.#context.postponed]) connection.peersChanged();
        return;
      case "leaving":
        this.#context.peers.leaving(command.peers, this.#context.now());
        return;
      case "deny":
        this.#context.denied = command.denied;
        for (const { pod } of this.#pods.values()) {
          pod.pool.closeIdle();
          pod.verifyAgain();
        }
        return;
      case "prove": {
        const { id, relay } = command;
        const done = (result: ProofResult) => this.#context.report({ type: "proved", id, result });
        const enrolled = this.#pods.get(relay);
        if (enrolled === undefined) {
          return done({ ok: false, reason: "the pod is not enrolled here" });
        }
        return prove(enrolled.pod, command.address, done);
      }
      case "report": {
        const pods = [...this.#pods.values()].map(({ pod }) => pod.report());
        return this.#context.report({ type: "report", id: command.id, pods, past: this.#past });
      }
    }
  }

  /** Streams whose peer has left the registry end, after two reviews that find it so. */
  #reviewSoon(): void {
    if (this.#isReviewDue) return;
    this.#isReviewDue = true;
    this.#context.loop.deadlines.arm(this, REVIEW_MILLISECONDS);
  }

  expired(): void {
    this.#isReviewDue = false;
    let suspects = false;
    for (const { pod } of this.#pods.values()) suspects = pod.review() || suspects;
    if (suspects) this.#reviewSoon();
  }

  #enrol({ pod, credentials }: WorkerCommand & { type: "enrol" }): void {
    try {
      this.#pods.set(
        pod.relay,
        new EnrolledPod(new RelayPod(this.#context, pod, credentials, this.namespaceOf(pod))),
      );
      this.#context.report({ type: "enrolled", relay: pod.relay });
    } catch (error) {
      closeListeners(pod);
      const reason = errorText(error);
      this.#context.report({ type: "failed", relay: pod.relay, reason });
    }
  }

  #take({ relay, listener, descriptor, peer }: PassedConnection): void {
    const socket = new Socket(descriptor);
    const enrolled = this.#pods.get(relay);
    if (enrolled === undefined) return socket.reset(); // withdrawn meanwhile
    enrolled.take(listener, socket, peer);
  }

  #connections(): { connections: ConnectionReport[]; count: number } {
    const connections: ConnectionReport[] = [];
    let count = 0;
    for (const { pod } of this.#pods.values()) {
      count += pod.connections.size;
      for (const connection of pod.connections) {
        if (connections.length >= MAX_CONNECTIONS) break;
        const report = connection.describe();
        if (report !== undefined) connections.push(report);
      }
    }
    return { connections, count };
  }

  #withdraw(relay: number, drainMilliseconds: number): void {
    const enrolled = this.#pods.get(relay);
    const done = () => {
      if (enrolled !== undefined) this.#past = sumOf(this.#past, enrolled.pod.report());
      this.#pods.delete(relay);
      this.#context.report({ type: "withdrawn", relay });
    };
    if (enrolled === undefined) return done();
    enrolled.withdraw(drainMilliseconds, done);
  }
}

/**
 * A pod and its listeners.
 *
 *     serving ─ withdraw ─► draining ─ the last stream has ended, or the time is over ─► gone
 */
class EnrolledPod implements Expiring {
  #state:
    | { readonly name: "serving" }
    | { readonly name: "gone" }
    | { readonly name: "draining"; readonly until: number; readonly withdrawn: (() => void)[] } = {
      name: "serving",
    };
  /** The outbound ones first. In every worker the same. */
  readonly #listeners: Listener[] = [];

  constructor(readonly pod: RelayPod) {
    const { worker, description } = pod;
    const listen = (descriptor: number, accepted: (socket: Socket, peer: Endpoint) => void) => {
      const index = this.#listeners.length;
      const passOn = (socket: Socket, peer: Endpoint) => this.#passOn(index, socket, peer);
      this.#listeners.push(new Listener(worker, descriptor, accepted, passOn));
    };
    for (const descriptor of description.outbound) {
      listen(descriptor, (socket, peer) => acceptOutbound(pod, socket, peer));
    }
    for (const [index, descriptor] of description.inbound.entries()) {
      const local = parseAddress(description.addresses[index] ?? "");
      listen(descriptor, (socket, peer) => acceptInbound(pod, socket, peer, local));
    }
  }

  /** What another worker has accepted. */
  take(listener: number, socket: Socket, peer: Endpoint): void {
    this.#listeners[listener]?.take(socket, peer);
  }

  #passOn(listener: number, { descriptor }: Socket, peer: Endpoint): boolean {
    const { worker, description: { relay } } = this.pod;
    const to = worker.load.lighter();
    if (to === undefined) return false;
    worker.report({ type: "passed", to, connection: { relay, listener, descriptor, peer } });
    return true;
  }

  /** Closes the listeners now, the connections when they have ended or the time is over. */
  withdraw(drainMilliseconds: number, withdrawn: () => void): void {
    const state = this.#state;
    if (state.name === "gone") return withdrawn();
    for (const listener of this.#listeners) listener[Symbol.dispose]();
    const until = this.pod.worker.now() + drainMilliseconds;
    this.#state = state.name === "serving" ? { name: "draining", until, withdrawn: [withdrawn] } : {
      name: "draining",
      until: Math.min(until, state.until),
      withdrawn: [...state.withdrawn, withdrawn],
    };
    this.expired();
  }

  /** Looks again whether the last stream has ended. */
  expired(): void {
    const state = this.#state;
    if (state.name !== "draining") return;
    const { worker, counters } = this.pod;
    if (counters.streamsOpen > 0 && worker.now() < state.until) {
      return worker.loop.deadlines.arm(this, DRAIN_POLL_MILLISECONDS);
    }
    this.#state = { name: "gone" };
    worker.loop.deadlines.disarm(this);
    this.pod[Symbol.dispose]();
    for (const withdrawn of state.withdrawn) withdrawn();
  }
}

/** Lent by the main thread until `withdrawn`, so never disposed of here. */
function lentNamespace({ namespace }: PodDescription): NetworkNamespace {
  return new NetworkNamespace(namespace);
}

function closeListeners(pod: PodDescription): void {
  for (const descriptor of [...pod.outbound, ...pod.inbound]) {
    new Socket(descriptor)[Symbol.dispose]();
  }
}
