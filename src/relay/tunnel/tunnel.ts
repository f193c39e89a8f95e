import { errorText } from "../../error_text.ts";
import { EAGAIN, errnoName, SystemError } from "../../native/errno.ts";
import {
  EPOLLERR,
  EPOLLET,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  EPOLLPRI,
  EPOLLRDHUP,
} from "../../native/epoll.ts";
import { GRAIN, ScatterBuffer } from "../../native/scatter.ts";
import type { Socket } from "../../native/socket.ts";
import {
  INCOMING_SIZE,
  MAX_RECORD,
  SMALL_INCOMING_SIZE,
  TlsError,
  type TlsFacts,
  type TlsSession,
} from "../../native/tls_session.ts";
import type { Expiring } from "../loop/deadlines.ts";
import { FRAME, type FrameHandler, FrameReader, HEADER_SIZE, type Open } from "./frame.ts";
import { writeHeader, writeOpen, writeRefuse } from "./frame.ts";
import type { Handler } from "../loop/event_loop.ts";
import { isCrowded, Pending } from "../loop/pending.ts";
import { SHARE_MILLISECONDS, type TurnShare } from "../loop/turn_share.ts";
import type { WorkerContext } from "../loop/worker_context.ts";

/** Everything that a connection registers for, once. */
export const ALL_EVENTS = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET;

/** Events after which reads must go on to the end: no further edge will announce it. */
const CLOSING = EPOLLRDHUP | EPOLLHUP | EPOLLERR;

/** How many times 64 KiB one tunnel may take before others have their turn. */
const ROUNDS = 4;

/** Of each record: header, content type and tag (RFC 8446 5.2). */
const RECORD_OVERHEAD = 22;

/**
 * How many bytes may come that hold none of ours. A part of a record is among them; the rest can
 * only be records that no relay sends, of which a KeyUpdate costs as much as a kilobyte of data, in
 * 27 bytes.
 */
const MOST_USELESS = 32_768;

/** A peer that vanishes is noticed after a minute when nothing is under way. */
const KEEPALIVE_SECONDS = 20;

/**
 * How often it is asked for what is under way, and how long the peer may acknowledge nothing. TCP
 * itself would go on for a quarter of an hour. TCP_USER_TIMEOUT is no help: it also ends
 * connections whose peer answers, but has paused reading (tcp_probe_timer() in
 * net/ipv4/tcp_timer.c).
 */
const DELIVERY_MILLISECONDS = 15_000;
const SILENT_MILLISECONDS = 30_000;
const UNANSWERED_TRIES = 3;

/** How long a closed tunnel waits for the peer to close its side. */
const LINGER_MILLISECONDS = 2_000;

/** Who uses a tunnel: the outbound or the inbound side. */
export interface TunnelOwner extends FrameHandler {
  /** Whether more may be read: false while the application has not taken what came before. */
  readonly accepting: boolean;
  /** The handshake is done and the chain verified: decide on the peer's identity, or throw. */
  secured(tunnel: Tunnel): void;
  /** Everything that one read brought has been handed over. */
  batchEnd(): void;
  /** What could not be sent has been sent. */
  drained(): void;
  /**
   * The tunnel is closed, not by its owner: `reason` for the log, `error` what broke it if
   * anything.
   */
  lost(reason: string, error?: unknown): void;
}

/**
 * One mTLS connection between two pods' relays: socket, TLS session and frames. It carries one
 * stream at a time.
 *
 *     connecting ─► handshake ─► open ─► lingering ─► closed
 */
export class Tunnel implements Handler, Expiring {
  owner: TunnelOwner;
  readonly opened: number;
  /**
   * When the first of the two certificates expires, in milliseconds since 1970; unknown before the
   * handshake.
   */
  expires = 0;
  /** Of the pod's credentials that it was made with (tunnel_pod.ts). */
  epoch = 0;
  /** What was agreed on; undefined before the handshake. */
  tls: TlsFacts | undefined;
  #state: "connecting" | "handshake" | "open" | "lingering" | "closed";
  /** May have something to read. */
  #readable = true;
  #closing = false;
  /** Its deadline is armed for it. */
  #awaitsDelivery = false;
  /** Bytes since the handshake that have brought none of ours yet. */
  #useless = 0;
  readonly #unsent = new Pending();
  readonly #frames = new FrameReader();

  /** Takes over `socket` and `session`. A client's socket is still connecting. */
  constructor(
    readonly worker: WorkerContext,
    readonly socket: Socket,
    readonly session: TlsSession,
    role: "client" | "server",
    owner: TunnelOwner,
    readonly share: TurnShare,
  ) {
    this.owner = owner;
    this.opened = worker.now();
    this.#state = role === "client" ? "connecting" : "handshake";
    socket.keepAlive(KEEPALIVE_SECONDS);
    worker.loop.register(socket.descriptor, ALL_EVENTS, this);
    worker.memory.opened();
  }

  /** Whether ciphertext waits for the socket: nothing more should be sent meanwhile. */
  get congested(): boolean {
    return !this.#unsent.empty;
  }

  /** Whether it is of no more use to its owner. */
  get closed(): boolean {
    return this.#state === "closed" || this.#state === "lingering";
  }

  /** Whether both certificates are still good by the wall clock: else no stream may begin on it. */
  get current(): boolean {
    return this.worker.wallClock() < this.expires;
  }

  /** Whether the peer may start something new: no frame is half read. */
  get atFrameBorder(): boolean {
    return !this.#frames.midFrame;
  }

  /**
   * The handshake is done, between certificates with so much life left (seconds, milliseconds since
   * 1970).
   */
  agreed(peerSecondsLeft: number, ownNotAfter: number): TlsFacts {
    this.expires = Math.min(this.worker.wallClock() + peerSecondsLeft * 1000, ownNotAfter);
    return this.tls = this.session.facts();
  }

  ready(events: number): void {
    if ((events & (EPOLLIN | CLOSING)) !== 0) this.#readable = true;
    if ((events & CLOSING) !== 0) this.#closing = true;
    if (this.#state === "lingering") return this.#linger(events);
    if (this.#state === "connecting" && !this.#connected(events)) return;
    if ((events & EPOLLOUT) !== 0 && this.congested) {
      const result = this.#unsent.flush(this.socket.descriptor);
      if (result < 0) return this.#lose(errnoName(-result));
      if (!this.congested && this.#state === "open") this.owner.drained();
    }
    this.receive();
  }

  failed(error: unknown): void {
    this.#lose("internal error", error);
  }

  /** Reads as long as there is something, the owner accepts it, and the pod has its share. */
  receive(): void {
    if (!this.#readable || this.closed || !this.owner.accepting) return;
    if (!this.share.admits(this)) return;
    const began = this.worker.now();
    this.#receive(began);
    this.share.spend(this.worker.now() - began);
  }

  #receive(began: number): void {
    for (let round = 0; this.#readable && !this.closed && this.owner.accepting; round++) {
      const isOver = round === ROUNDS || this.worker.now() - began >= SHARE_MILLISECONDS;
      if (isOver) return this.worker.loop.again(this);
      const most = isCrowded() ? SMALL_INCOMING_SIZE : INCOMING_SIZE;
      const count = this.worker.engine.receive(this.socket.descriptor, most);
      if (count === -EAGAIN) {
        this.#readable = false;
        return;
      }
      if (count === 0) return this.#lose("the peer closed the connection");
      if (count < 0) return this.#lose(errnoName(-count), this.#earlyError("recvmsg", -count));
      this.worker.load.add(count);
      // A short read emptied the socket (epoll(7)): save the call that would say EAGAIN.
      if (count < most && !this.#closing) this.#readable = false;
      this.#take(count);
    }
  }

  sendOpen(open: Open): void {
    this.#sendControl(writeOpen(control.bytes, open));
  }

  sendRefuse(errno: number): void {
    this.#sendControl(writeRefuse(control.bytes, errno));
  }

  /** ACCEPT, END or RESET. */
  send(type: number): void {
    writeHeader(control.bytes, 0, type, 0);
    this.#sendControl(HEADER_SIZE);
  }

  /**
   * Encrypts one DATA frame whose payload lies at `offset` + HEADER_SIZE of `buffer`; sent by
   * {@link flush}.
   */
  sealData(buffer: ScatterBuffer, offset: number, length: number): void {
    writeHeader(buffer.bytes, offset, FRAME.DATA, length);
    this.session.write(buffer, offset, HEADER_SIZE + length);
  }

  /** Sends what was encrypted; what the socket does not take is kept. */
  flush(): void {
    const { engine } = this.worker;
    const produced = engine.produced;
    if (produced === 0) return;
    if (!this.#awaitsDelivery) this.#awaitDelivery();
    const { outgoing } = engine;
    outgoing.clear();
    outgoing.add(0, produced);
    this.worker.load.add(produced);
    const sent = this.congested ? -EAGAIN : outgoing.send(this.socket.descriptor);
    const broken = sent < 0 && sent !== -EAGAIN;
    if (!broken && sent < produced) this.#unsent.keep(outgoing, Math.max(sent, 0));
    engine.clearOutgoing();
    if (broken) this.#lose(errnoName(-sent));
  }

  /**
   * Closes it for good. What was sent goes on, and a close_notify behind it; the socket stays until
   * the peer has closed too: closing it with unread bytes would make the kernel send RST, which
   * could overtake our last frames.
   */
  close(): void {
    if (this.closed) return;
    if (this.#state !== "open") return this.#release();
    this.session.close();
    this.flush();
    if (this.closed) return;
    this.session[Symbol.dispose]();
    this.#state = "lingering";
    if (!this.congested) this.socket.finish();
    this.worker.loop.deadlines.arm(this, LINGER_MILLISECONDS);
    this.worker.loop.again(this);
  }

  /**
   * The peer has not closed its side in time; or it is time to see what has become of what was
   * sent.
   */
  expired(): void {
    if (this.#state === "lingering") return this.#release();
    this.#awaitsDelivery = false;
    const { isComplete, silentMilliseconds, unansweredTries } = this.socket.delivery();
    if (isComplete) return;
    if (silentMilliseconds < SILENT_MILLISECONDS || unansweredTries < UNANSWERED_TRIES) {
      return this.#awaitDelivery();
    }
    this.socket.resetsOnClose(true); // else the kernel would go on trying
    this.#lose("the peer has vanished: it acknowledges nothing");
  }

  #awaitDelivery(): void {
    this.#awaitsDelivery = true;
    this.worker.loop.deadlines.arm(this, DELIVERY_MILLISECONDS);
  }

  #connected(events: number): boolean {
    if ((events & (EPOLLOUT | CLOSING)) === 0) return false;
    const error = this.socket.takeError();
    if (error !== 0) {
      this.#lose(`cannot connect: ${errnoName(error)}`, this.#earlyError("connect", error));
      return false;
    }
    this.#state = "handshake";
    this.#take(0); // the client speaks first
    return true;
  }

  /** What broke the connection before anything was agreed on; later it is how tunnels end. */
  #earlyError(call: string, errno: number): SystemError | undefined {
    return this.#state === "open" ? undefined : new SystemError(call, errno, "a tunnel");
  }

  #take(count: number): void {
    this.#useless += count;
    this.worker.engine.feed(count);
    this.#process();
  }

  /** Drives the session with what the engine was fed, and sends what comes of it, also an alert. */
  #process(): void {
    try {
      if (this.#state === "handshake") {
        if (this.session.handshake()) {
          this.#state = "open";
          this.owner.secured(this);
          if (!this.closed) this.#readFrames();
          this.#useless = 0;
        }
      } else if (this.#state === "open") {
        this.#readFrames();
        if (this.#useless > MOST_USELESS) throw new TlsError("the peer sends records without data");
      }
    } catch (error) {
      if (!this.closed) {
        this.flush();
        this.#lose(errorText(error), error);
      }
    }
    if (this.closed) {
      this.worker.engine.clearOutgoing();
      return;
    }
    this.flush();
  }

  #readFrames(): void {
    const { engine, plain } = this.worker;
    plain.clear();
    let offset = 0;
    while (!this.closed && engine.unread > 0) {
      const count = this.session.read(plain, offset);
      if (count === 0) break;
      if (count < 0) {
        this.owner.batchEnd();
        return this.#lose("the peer closed the tunnel");
      }
      this.#useless -= count + RECORD_OVERHEAD;
      this.#frames.read(plain.bytes, offset, count, this.owner);
      offset += Math.ceil(count / GRAIN) * GRAIN;
      if (offset > plain.bytes.length - MAX_RECORD) throw new RangeError("too many tiny records");
    }
    if (!this.closed) this.owner.batchEnd();
  }

  #sendControl(length: number): void {
    if (this.closed) return;
    this.session.write(control, 0, length);
    this.flush();
  }

  #lose(reason: string, error?: unknown): void {
    if (this.closed) return;
    this.#release();
    this.owner.lost(reason, error);
  }

  #linger(events: number): void {
    if ((events & EPOLLOUT) !== 0 && this.congested) {
      if (this.#unsent.flush(this.socket.descriptor) < 0) return this.#release();
      if (!this.congested) this.socket.finish();
    }
    this.#discard();
  }

  /** Reads what still comes, for nobody, until the peer has closed. */
  #discard(): void {
    for (let round = 0; round < ROUNDS; round++) {
      const count = this.worker.engine.receive(this.socket.descriptor, INCOMING_SIZE);
      if (count === -EAGAIN) return;
      if (count <= 0) return this.#release();
    }
    this.worker.loop.again(this);
  }

  #release(): void {
    this.worker.loop.deadlines.disarm(this);
    this.#state = "closed";
    this.worker.memory.closed();
    this.worker.loop.forget(this.socket.descriptor);
    this.#unsent.drop();
    this.session[Symbol.dispose]();
    this.socket[Symbol.dispose]();
  }
}

/** One control frame that is being sent. */
const control = new ScatterBuffer(64);
