/// <reference lib="deno.worker" />
/**
 * A relay worker: one thread with its own epoll loop. It blocks in the kernel; the main thread posts a
 * command and rings the bell, and the worker then gives its event loop a turn to receive it.
 */
import { parseAddress } from "../addresses.ts";
import { Bell } from "../native/epoll.ts";
import { Socket } from "../native/socket.ts";
import type { Endpoint } from "../native/socket_address.ts";
import { AlpnProtocol } from "../native/tls_context.ts";
import { TlsEngine } from "../native/tls_session.ts";
import type { Expiring } from "./loop/deadlines.ts";
import { ALPN } from "./tunnel/frame.ts";
import { acceptInbound } from "./stream/inbound.ts";
import { Listener } from "./loop/listener.ts";
import { Load } from "./loop/load.ts";
import { EventLoop } from "./loop/event_loop.ts";
import type {
  ConnectionReport,
  PassedConnection,
  PodDescription,
  ProofResult,
  WorkerCommand,
  WorkerEvent,
} from "./messages.ts";
import { acceptOutbound } from "./stream/outbound.ts";
import { NO_TRAFFIC, sumOf } from "./traffic.ts";
import { prove } from "./stream/proof.ts";
import { RelayPod } from "./stream/pod.ts";
import { openMaps, WorkerContext } from "./loop/worker_context.ts";

/** Commands that arrived before the loop could take them. */
const commands: WorkerCommand[] = [];
let received = 0;
self.onmessage = (message: MessageEvent<WorkerCommand>) => {
  received++;
  if (message.data.type === "start") start(message.data);
  else commands.push(message.data);
};

function start(command: WorkerCommand & { type: "start" }): void {
  let rung = 1; // for this command
  const relay = new Relay(command, async (rings) => {
    rung += rings;
    while (received < rung) await new Promise((resolve) => setTimeout(resolve, 0));
    for (const next of commands.splice(0)) relay.tryToObey(next);
  });
  relay.run();
}

const DRAIN_POLL_MILLISECONDS = 50;

/** How many a worker lists. */
const MAX_CONNECTIONS = 1_000;

/** The enrolled pods of one worker and the commands about them. */
class Relay {
  readonly #context: WorkerContext;
  readonly #pods = new Map<number, EnrolledPod>();
  #past = NO_TRAFFIC;

  constructor(
    command: WorkerCommand & { type: "start" },
    receive: (rings: number) => Promise<void>,
  ) {
    this.#context = new WorkerContext(
      command.context,
      openMaps(command.context.maps),
      new EventLoop(new Bell(command.bell), receive),
      new TlsEngine(new AlpnProtocol(ALPN)),
      new Load(command.load, command.worker),
      (event: WorkerEvent) => self.postMessage(event),
    );
  }

  async run(): Promise<void> {
    await this.#context.loop.run();
  }

  /** A command that fails must not take the worker, and so the whole node, with it. */
  tryToObey(command: WorkerCommand): void {
    try {
      this.#obey(command);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
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
        for (const { pod } of this.#pods.values()) {
          pod.pool.retain((peer) => this.#context.peers.isCurrent(peer));
        }
        for (const connection of [...this.#context.postponed]) connection.peersChanged();
        return;
      case "prove": {
        const { id, relay } = command;
        const done = (result: ProofResult) => this.#context.report({ type: "proved", id, result });
        const enrolled = this.#pods.get(relay);
        if (enrolled === undefined) {
          return done({ ok: false, reason: "the pod is not enrolled here" });
        }
        return prove(enrolled.pod, done);
      }
      case "report": {
        const pods = [...this.#pods.values()].map(({ pod }) => pod.report());
        return this.#context.report({ type: "report", id: command.id, pods, past: this.#past });
      }
    }
  }

  #enrol({ pod, credentials }: WorkerCommand & { type: "enrol" }): void {
    try {
      this.#pods.set(pod.relay, new EnrolledPod(new RelayPod(this.#context, pod, credentials)));
      this.#context.report({ type: "enrolled", relay: pod.relay });
    } catch (error) {
      closeListeners(pod);
      const reason = error instanceof Error ? error.message : String(error);
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

/** A pod and its listeners, until they are withdrawn. */
class EnrolledPod implements Expiring {
  /** The outbound ones first. In every worker the same. */
  readonly #listeners: Listener[] = [];
  #withdrawn: (() => void) | undefined;
  #drainUntil = 0;

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
    for (const listener of this.#listeners) listener[Symbol.dispose]();
    this.#withdrawn = withdrawn;
    this.#drainUntil = this.pod.worker.now() + drainMilliseconds;
    this.expired();
  }

  /** Looks again whether the last stream has ended. */
  expired(): void {
    if (this.pod.counters.streamsOpen > 0 && this.pod.worker.now() < this.#drainUntil) {
      return this.pod.worker.loop.deadlines.arm(this, DRAIN_POLL_MILLISECONDS);
    }
    this.pod[Symbol.dispose]();
    this.#withdrawn?.();
  }
}

function closeListeners(pod: PodDescription): void {
  for (const descriptor of [...pod.outbound, ...pod.inbound]) {
    new Socket(descriptor)[Symbol.dispose]();
  }
}
