import { errorText } from "../../error_text.ts";
import { EAGAIN, errnoName } from "../../native/errno.ts";
import { EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP } from "../../native/epoll.ts";
import { ScatterBuffer } from "../../native/scatter.ts";
import type { Socket } from "../../native/socket.ts";
import type { Handler } from "../loop/event_loop.ts";
import { Pending } from "../loop/pending.ts";
import { ALL_EVENTS } from "../tunnel/tunnel.ts";
import type { WorkerContext } from "../loop/worker_context.ts";

const CLOSING = EPOLLRDHUP | EPOLLHUP | EPOLLERR;

/** As in stream.ts: after these a short read does not mean that the socket is empty. */
const TO_THE_END = EPOLLPRI | CLOSING;

/** How much is copied at once. */
const COPY_SIZE = 65_536;

/** How many times 64 KiB one direction may take before others have their turn. */
const ROUNDS = 4;

const KEEPALIVE_SECONDS = 20;

/** Who a plain stream belongs to. */
export interface PlainStreamOwner {
  /** The endpoint was reached: {@link PlainStream.join}, or give it up. */
  connected(): void;
  /** The endpoint cannot be reached; nothing was sent. */
  unreachable(errno: number): void;
  /** Both sockets are closed; `error` unless both sides had ended. */
  closed(error: string | undefined): void;
}

/**
 * A connection in clear to a Service's endpoint that is not enrolled (or is the pod itself): bytes
 * are copied between two sockets of the pod's namespace. Whatever ends otherwise than by both FINs
 * is a reset on both.
 */
export class PlainStream implements Handler {
  bytesSent = 0;
  bytesReceived = 0;
  #app: Side | undefined;
  readonly #far: Side;
  #state: "connecting" | "open" | "closed" = "connecting";

  /** Takes over `far`, a socket that is connecting. */
  constructor(readonly worker: WorkerContext, far: Socket, readonly owner: PlainStreamOwner) {
    far.keepAlive(KEEPALIVE_SECONDS); // the application's own ends at the relay
    this.#far = new Side(far);
    worker.loop.register(far.descriptor, ALL_EVENTS, this);
  }

  /** Takes over the application's socket, which is registered already, and begins to copy. */
  join(app: Socket): void {
    app.resetsOnClose(true);
    this.#far.socket.resetsOnClose(true);
    this.#app = new Side(app);
    this.#state = "open";
    this.worker.loop.replace(app.descriptor, {
      ready: (events) => this.#event(this.#app, events),
      failed: (error) => this.failed(error),
    });
    this.#copy();
  }

  ready(events: number): void {
    if (this.#state !== "connecting") return this.#event(this.#far, events);
    if ((events & (EPOLLOUT | CLOSING)) === 0) return;
    const errno = this.#far.socket.takeError();
    if (errno === 0) return this.owner.connected();
    this.abandon();
    this.owner.unreachable(errno);
  }

  failed(error: unknown): void {
    this.#close(`internal error: ${errorText(error)}`);
  }

  /** Gives up connecting; the application's socket stays its owner's. */
  abandon(): void {
    if (this.#state !== "connecting") return;
    this.#state = "closed";
    this.#release(this.#far, true);
  }

  /** Resets both sides. */
  reset(reason: string): void {
    this.abandon();
    this.#close(reason);
  }

  #event(side: Side | undefined, events: number): void {
    if (side === undefined || this.#state !== "open") return;
    if ((events & (EPOLLIN | TO_THE_END)) !== 0) side.readable = true;
    if ((events & TO_THE_END) !== 0) side.toTheEnd = true;
    this.#copy();
  }

  /** Both directions, as far as they go. */
  #copy(): void {
    const [app, far] = [this.#app, this.#far];
    if (app === undefined) return;
    if (!this.#move(app, far, (count) => this.bytesSent += count)) return;
    if (!this.#move(far, app, (count) => this.bytesReceived += count)) return;
    if (app.ended && far.ended && app.unsent.empty && far.unsent.empty) this.#close(undefined);
  }

  /** False when a side broke, and everything is closed. */
  #move(from: Side, to: Side, moved: (count: number) => void): boolean {
    const { loop } = this.worker;
    if (!to.unsent.empty) {
      const result = to.unsent.flush(to.socket.descriptor);
      if (result < 0) return this.#broken(result);
      if (!to.unsent.empty) return true;
      if (from.ended) to.socket.finish();
    }
    for (let round = 0; from.readable && !from.ended; round++) {
      if (round === ROUNDS) {
        loop.again(this);
        return true;
      }
      copy.clear();
      copy.add(0, COPY_SIZE);
      const count = copy.receive(from.socket.descriptor);
      if (count === -EAGAIN) {
        from.readable = from.toTheEnd = false;
        return true;
      }
      if (count < 0) return this.#broken(count);
      if (count === 0) {
        from.ended = true;
        to.socket.finish();
        return true;
      }
      moved(count);
      this.worker.load.add(count);
      copy.clear();
      copy.add(0, count);
      const sent = copy.send(to.socket.descriptor);
      if (sent < 0 && sent !== -EAGAIN) return this.#broken(sent);
      // A short read emptied the socket (epoll(7)): save the call that would say EAGAIN.
      if (count < COPY_SIZE && !from.toTheEnd) from.readable = false;
      if (sent < count) {
        to.unsent.keep(copy, Math.max(sent, 0));
        return true;
      }
    }
    return true;
  }

  #broken(result: number): false {
    this.#close(errnoName(-result));
    return false;
  }

  #close(error: string | undefined): void {
    if (this.#state !== "open") return;
    this.#state = "closed";
    this.#release(this.#far, error !== undefined);
    if (this.#app !== undefined) this.#release(this.#app, error !== undefined);
    this.owner.closed(error);
  }

  #release({ socket, unsent }: Side, reset: boolean): void {
    unsent.drop();
    this.worker.loop.forget(socket.descriptor);
    socket.resetsOnClose(reset);
    socket[Symbol.dispose]();
  }
}

/** One of the two sockets, and what it would not take yet. */
class Side {
  readable = true;
  /**
   * Reads must go on until the kernel says EAGAIN: events may have been somebody else's until now.
   */
  toTheEnd = true;
  /** It has sent FIN. */
  ended = false;
  readonly unsent = new Pending();

  constructor(readonly socket: Socket) {}
}

/** What is being copied: good for one event of this thread. */
const copy = new ScatterBuffer(COPY_SIZE);
