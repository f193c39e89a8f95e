import { EAGAIN, errnoName } from "../../native/errno.ts";
import { EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP } from "../../native/epoll.ts";
import type { Socket } from "../../native/socket.ts";
import { ScatterBuffer } from "../../native/scatter.ts";
import { MAX_RECORD } from "../../native/tls_session.ts";
import { FRAME, FrameError, HEADER_SIZE, MAX_DATA } from "../tunnel/frame.ts";
import type { Expiring } from "../loop/deadlines.ts";
import type { Handler } from "../loop/event_loop.ts";
import { areMany, isCrowded, Pending } from "../loop/pending.ts";
import type { Tunnel } from "../tunnel/tunnel.ts";
import type { WorkerContext } from "../loop/worker_context.ts";

/**
 * Events after which a short read does not mean that the socket is empty: an end may be behind it,
 * or an urgent byte, where every read stops (EPOLLPRI; tcp_recvmsg_locked() in net/ipv4/tcp.c).
 */
const TO_THE_END = EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR;

/** How many DATA frames one read from an application can fill. */
const SEGMENTS = 4;

/** How many times 64 KiB one application may send before others have their turn. */
const ROUNDS = 4;

/** How long the last bytes before a reset are offered to an application that does not take them. */
const LAST_BYTES_MILLISECONDS = 10_000;

/** How often it is asked whether the kernel has handed them over, of which nothing tells. */
const HANDED_OVER_MILLISECONDS = 20;

/** Who a stream belongs to. */
export interface StreamOwner {
  /**
   * The stream needs its tunnel no more, or will never have one. `clean`: both sides have ended, so
   * the tunnel can carry another; the application's socket may still take what came last.
   */
  released(clean: boolean, reason: string): void;
  /**
   * The application's socket is closed, called once, also without `released`; `reason` unless both
   * sides had ended.
   */
  closed(reason: string | undefined): void;
}

/**
 * One application connection, joined to a tunnel by {@link start}:
 *
 *     application ─ read ─► DATA ─► tunnel          END after the application's FIN
 *     application ◄─ write ─ DATA ◄─ tunnel         FIN after END
 *
 * One direction waits while its receiver has not taken everything. Whatever ends otherwise than by
 * both ENDs is a reset on both sides, never a clean close. As with TCP, what came before a reset is
 * read before it (net/ipv4/tcp_input.c: tcp_reset leaves the receive queue).
 *
 *     open ─── END sent ───► sent ──── END received ─► over ── last bytes taken ─► closed
 *       ├─ END received ─► received ─── END sent ───────┘                           ▲  ▲
 *       ├─ RESET ─► cut ─ last bytes taken, or too late ───────────────────────────┘  │
 *       └─ takes no more ─► deaf ─ its last bytes read, RESET sent ───────────────────┘
 *
 * RESET, and an application that takes no more, are the same in `sent` and in `received`.
 */
export class Stream implements Handler, Expiring {
  bytesSent = 0;
  bytesReceived = 0;
  #tunnel: Tunnel | undefined;
  /** An edge has announced something to read; the first one comes with the registration. */
  #readable = false;
  /** Reads must go on until the kernel says EAGAIN. */
  #toTheEnd = false;
  #state: "open" | "sent" | "received" | "over" | "cut" | "deaf" | "closed" = "open";
  /** Why it is `cut` or `deaf`. */
  #reason = "";
  /** Until when last bytes are offered, by the monotonic clock. */
  #patience = 0;
  readonly #pending = new Pending();
  /** Whose socket is not read for now, and has little room for what comes. */
  readonly #cramped = new Set<Socket>();
  /** Its sockets keep little unsent. */
  #isSpare = false;

  /**
   * Takes over `app`, a connected socket that resets when it is closed: if the agent dies, half an
   * answer must not look like a whole one. The owner registers the stream for its events.
   */
  constructor(readonly worker: WorkerContext, readonly app: Socket, readonly owner: StreamOwner) {
  }

  /** Whether the tunnel may be read: everything that came has gone to the application. */
  get accepting(): boolean {
    return this.#pending.empty;
  }

  /**
   * Joins the tunnel, on which the stream has been accepted. `events`: those of the application's
   * socket that somebody else has taken; no further edge announces them.
   */
  start(tunnel: Tunnel, events = 0): void {
    this.#tunnel = tunnel;
    if ((events & (EPOLLIN | TO_THE_END)) !== 0) this.#readable = true;
    if ((events & TO_THE_END) !== 0) this.#toTheEnd = true;
    this.#pump();
    if (this.#tunnel === tunnel) tunnel.receive();
  }

  ready(events: number): void {
    if (this.app.closed) return;
    if ((events & (EPOLLIN | TO_THE_END)) !== 0) this.#readable = true;
    if ((events & TO_THE_END) !== 0) this.#toTheEnd = true;
    // RDHUP may be a half-close before the stream begins; HUP and ERR end both directions.
    if (
      (events & (EPOLLERR | EPOLLHUP)) !== 0 && this.#tunnel === undefined &&
      this.#state !== "over" && !(this.#state === "open" && this.app.hasUnread())
    ) {
      return this.#break("the application is gone");
    }
    if ((events & EPOLLERR) !== 0 && this.#hasSentEnd) {
      return this.#break("reset by the application");
    }
    if ((events & EPOLLOUT) !== 0 && !this.#pending.empty && !this.#flushPending()) return;
    this.#pump();
  }

  failed(error: unknown): void {
    this.#break(`internal error: ${error instanceof Error ? error.stack : String(error)}`);
  }

  /** The tunnel can take more. */
  drained(): void {
    this.#relieve(this.app);
    this.#pump();
  }

  /** DATA: `length` bytes at `start` of the worker's plain buffer. */
  data(start: number, length: number): void {
    if (this.#state === "received" || this.#state === "over") {
      throw new FrameError("DATA after END");
    }
    const { plain } = this.worker;
    if (plain.full) this.deliver();
    plain.add(start, length);
  }

  /** Hands over what has been collected from DATA frames. */
  deliver(): void {
    const { plain } = this.worker;
    if (plain.length === 0) return;
    this.#spare();
    if (!this.app.closed && this.#state !== "deaf") {
      this.bytesReceived += plain.length;
      const sent = this.#pending.empty ? plain.send(this.app.descriptor) : -EAGAIN;
      if (sent < 0 && sent !== -EAGAIN) this.#deafen(`to the application: ${errnoName(-sent)}`);
      else if (sent < plain.length) {
        this.#pending.keep(plain, Math.max(sent, 0));
        this.#cramp(this.#tunnel?.socket);
      }
    }
    plain.clear();
  }

  /** END. */
  end(): void {
    if (this.#state === "received" || this.#state === "over") throw new FrameError("END after END");
    this.deliver();
    if (this.app.closed || this.#state === "deaf") return;
    this.#state = this.#hasSentEnd ? "over" : "received";
    // Else closing the socket says the same.
    if (this.#pending.empty && this.#state === "received") this.app.finish();
    this.#finishIfDone();
  }

  /** RESET: the application sees a reset behind what came before it, in the same batch too. */
  cut(reason: string): void {
    this.deliver();
    if (this.app.closed) return;
    this.#tunnel = undefined;
    if (this.#state === "deaf") return this.#close(reason);
    this.#state = "cut";
    this.#reason = reason;
    this.#patience = this.worker.now() + LAST_BYTES_MILLISECONDS;
    this.expired();
  }

  /** The tunnel broke, or nothing may come of the stream any more: the application sees a reset. */
  reset(reason: string): void {
    this.#tunnel = undefined;
    this.#close(reason);
  }

  /** It is time to see what has become of the last bytes before a reset. */
  expired(): void {
    if (this.#state !== "cut") return;
    const isTaken = this.#pending.empty && this.app.delivery().isComplete;
    if (isTaken || this.worker.now() >= this.#patience) return this.#close(this.#reason);
    this.worker.loop.deadlines.arm(this, HANDED_OVER_MILLISECONDS);
  }

  get #hasSentEnd(): boolean {
    return this.#state === "sent" || this.#state === "over";
  }

  /** Reads from the application as long as it has something and the tunnel takes it. */
  #pump(): void {
    const { loop } = this.worker;
    if (this.#readable) this.#spare();
    for (let round = 0; this.#readable && !this.#hasSentEnd; round++) {
      const tunnel = this.#tunnel;
      if (tunnel === undefined) return;
      if (tunnel.congested) return this.#cramp(this.app);
      if (round === ROUNDS) return loop.again(this);
      const segments = isCrowded() ? 1 : SEGMENTS;
      const count = gather.receive(this.app.descriptor, segments);
      if (count === -EAGAIN) {
        this.#readable = false;
        if (this.#state === "deaf") this.#break(this.#reason);
        return;
      }
      if (count < 0) return this.#break(`from the application: ${errnoName(-count)}`);
      if (count === 0) return this.#endSending(tunnel);
      this.bytesSent += count;
      this.#seal(tunnel, count);
      const isShort = count < segments * MAX_DATA;
      if (isShort && this.#toTheEnd) return this.#sendLast(tunnel);
      tunnel.flush();
      if (isShort) this.#readable = false;
    }
  }

  /**
   * What was read last is sealed, and FIN is likely to be next: both sides are spared a call if END
   * goes with it.
   */
  #sendLast(tunnel: Tunnel): void {
    const { loop } = this.worker;
    // Of more than one record the tunnel could not keep what it does not take.
    const count = gather.receive(this.app.descriptor, 1);
    if (count === 0) return this.#endSending(tunnel);
    tunnel.flush();
    if (count === -EAGAIN && this.#state !== "deaf") this.#readable = false;
    else if (count === -EAGAIN) this.#break(this.#reason);
    else if (count < 0) this.#break(`from the application: ${errnoName(-count)}`);
    else {
      this.bytesSent += count;
      this.#seal(tunnel, count);
      tunnel.flush();
      loop.again(this);
    }
  }

  /** FIN: the application sends no more. What was sealed goes with END. */
  #endSending(tunnel: Tunnel): void {
    if (this.#state === "deaf") return this.#break(this.#reason);
    this.#state = this.#state === "received" ? "over" : "sent";
    tunnel.send(FRAME.END);
    this.#finishIfDone();
  }

  #seal(tunnel: Tunnel, count: number): void {
    for (let segment = 0; count > 0; segment++) {
      const length = Math.min(count, MAX_DATA);
      tunnel.sealData(gather, segment * MAX_RECORD, length);
      count -= length;
    }
  }

  /** Where many are waited for, whoever stops next must not leave megabytes unsent, too. */
  #spare(): void {
    if (this.#isSpare || !areMany()) return;
    this.#isSpare = true;
    this.app.keepLittleUnsent();
    this.#tunnel?.socket.keepLittleUnsent();
  }

  /** Nothing is read from this socket until the other one takes more. */
  #cramp(socket: Socket | undefined): void {
    if (socket === undefined || !areMany() || this.#cramped.has(socket)) return;
    this.#cramped.add(socket);
    socket.keepUnread("little");
  }

  #relieve(socket: Socket | undefined): void {
    if (socket === undefined || !this.#cramped.delete(socket) || socket.closed) return;
    socket.keepUnread("enough");
  }

  /** False when the application's socket broke. */
  #flushPending(): boolean {
    const result = this.#pending.flush(this.app.descriptor);
    if (result < 0) {
      this.#deafen(`to the application: ${errnoName(-result)}`);
      return false;
    }
    if (!this.#pending.empty) return true;
    if (this.#state === "over") this.#close(undefined);
    else if (this.#state === "cut") this.expired();
    else {
      if (this.#state === "received") this.app.finish();
      this.#relieve(this.#tunnel?.socket);
      this.#tunnel?.receive();
    }
    return !this.app.closed;
  }

  #finishIfDone(): void {
    if (this.#state !== "over") return;
    this.#relieve(this.#tunnel?.socket);
    this.#tunnel = undefined;
    if (this.#pending.empty) this.#close(undefined);
    this.owner.released(true, "ended");
  }

  /**
   * The application takes no more. What it had sent before is the other one's all the same, as with
   * TCP: it is read first, and the reset follows it.
   */
  #deafen(reason: string): void {
    if (this.#tunnel === undefined || this.#hasSentEnd) return this.#break(reason);
    this.#state = "deaf";
    this.#reason = reason;
    this.#pending.drop();
    this.#readable = this.#toTheEnd = true;
    this.worker.loop.again(this);
  }

  /** The application's side broke: the other application sees a reset. */
  #break(reason: string): void {
    const tunnel = this.#tunnel;
    this.#tunnel = undefined;
    const needsTunnel = this.#state !== "over" && this.#state !== "closed";
    this.#close(reason);
    if (!needsTunnel) return;
    tunnel?.send(FRAME.RESET);
    this.owner.released(false, reason);
  }

  /** A close with a reason is a reset. */
  #close(reason: string | undefined): void {
    if (this.app.closed) return;
    this.#state = "closed";
    this.#pending.drop();
    this.worker.loop.deadlines.disarm(this);
    this.worker.loop.forget(this.app.descriptor);
    if (reason === undefined) this.app.resetsOnClose(false);
    this.app[Symbol.dispose]();
    this.owner.closed(reason);
  }
}

/**
 * What an application sent, with room for a header before each of the payloads: good for one event
 * of this thread.
 */
const gather = new ScatterBuffer(SEGMENTS * MAX_RECORD);
for (let segment = 0; segment < SEGMENTS; segment++) {
  gather.add(segment * MAX_RECORD + HEADER_SIZE, MAX_DATA);
}
