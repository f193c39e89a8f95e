import { errorText } from "../../error_text.ts";
import { EPOLLIN } from "../../native/epoll.ts";
import { EAGAIN, errnoName, isShortage } from "../../native/errno.ts";
import { Socket } from "../../native/socket.ts";
import type { Endpoint } from "../../native/socket_address.ts";
import type { Expiring } from "./deadlines.ts";
import type { Handler } from "./event_loop.ts";
import type { WorkerContext } from "./worker_context.ts";

/**
 * How many connections one event may accept before others have their turn. Each may cost a dial and
 * a handshake: one pod that connects and resets all the time, with more, made others wait for
 * seconds.
 */
const BATCH = 4;

/** How long accepting rests when the process or the node is out of descriptors or memory. */
const PAUSE_MILLISECONDS = 100;

/**
 * Accepts connections on a listening socket that it takes over; level-triggered, so none is
 * forgotten.
 */
export class Listener implements Handler, Expiring, Disposable {
  readonly #socket: Socket;
  #closed = false;

  constructor(
    readonly worker: WorkerContext,
    descriptor: number,
    readonly accepted: (socket: Socket, peer: Endpoint) => void,
    /** Gives the connection to another worker: false when this one is to take it. */
    readonly passOn: (socket: Socket, peer: Endpoint) => boolean = () => false,
  ) {
    this.#socket = new Socket(descriptor);
    worker.loop.register(descriptor, EPOLLIN, this);
  }

  ready(): void {
    for (let count = 0; count < BATCH; count++) {
      const result = this.#socket.accept();
      if (typeof result !== "number") {
        const { socket, peer } = result;
        if (!this.passOn(socket, peer)) this.take(socket, peer);
        continue;
      }
      if (result === EAGAIN) return;
      if (isShortage(result)) return this.#pause(result);
      // What remains is the fate of one connection, reset before it was accepted (accept(2)): take
      // the next.
    }
  }

  /** A connection that cannot be taken on is refused, and costs nobody else anything. */
  take(socket: Socket, peer: Endpoint): void {
    try {
      if (this.#closed) return socket.reset();
      this.accepted(socket, peer);
    } catch (error) {
      this.worker.loop.forget(socket.descriptor);
      socket.reset();
      this.failed(error);
    }
  }

  /** The kernel keeps what arrives meanwhile, up to the backlog. */
  #pause(code: number): void {
    this.worker.log("warning", "accepting pauses: the agent is out of resources", {
      reason: "exhausted",
      errno: errnoName(code),
    });
    this.worker.loop.interest(this.#socket.descriptor, 0);
    this.worker.loop.deadlines.arm(this, PAUSE_MILLISECONDS);
  }

  expired(): void {
    if (!this.#closed) this.worker.loop.interest(this.#socket.descriptor, EPOLLIN);
  }

  failed(error: unknown): void {
    this.worker.log("error", "accepting a connection failed", { error: errorText(error) });
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.worker.loop.deadlines.disarm(this);
    this.worker.loop.forget(this.#socket.descriptor);
    this.#socket[Symbol.dispose]();
  }
}
