import { formatAddress } from "../addresses.ts";
import { checked, EINPROGRESS, errno, SystemError } from "./errno.ts";
import { libc } from "./libc.ts";
import {
  AF_INET,
  AF_INET6,
  decodeSocketAddress,
  encodeSocketAddress,
  type Endpoint,
  isIpv4,
  SOCKADDR_SIZE,
} from "./socket_address.ts";

/**
 * A TCP socket: non-blocking, close-on-exec, TCP_NODELAY. It belongs to the network namespace in
 * which its thread stood when it was made (or to its listener's), and has one owner, who disposes
 * of it. What the kernel keeps for it is this process's memory, so it is bounded here, and not by
 * the namespace's sysctls, which are its pod's (tcp_rmem, tcp_wmem).
 */
export class Socket implements Disposable {
  #open = true;

  /** Takes over `descriptor`. */
  constructor(readonly descriptor: number) {}

  /** A new socket of the address's family, in the calling thread's namespace. */
  static forAddress(address: Uint8Array): Socket {
    const family = isIpv4(address) ? AF_INET : AF_INET6;
    const descriptor = checked(
      libc.socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
      "socket",
      "making a TCP socket",
    );
    const socket = new Socket(descriptor);
    socket.setOption(IPPROTO_TCP, TCP_NODELAY, 1);
    socket.#setBuffer(SO_SNDBUFFORCE, SO_SNDBUF, unsentBytes.enough);
    socket.keepUnread("enough");
    return socket;
  }

  /**
   * How many bytes may wait to be read: as many as a long way needs, or `little` for one that is
   * not read for a while, whose sender sends again then what does not fit. The kernel doubles the
   * number for what it needs itself (socket(7)). Accepted sockets have their listener's. Without
   * CAP_NET_ADMIN, in tests, it is bounded by net.core.rmem_max.
   */
  keepUnread(amount: "enough" | "little"): void {
    this.#setBuffer(SO_RCVBUFFORCE, SO_RCVBUF, unreadBytes[amount]);
  }

  /**
   * From now on little is taken beyond what is under way (tcp(7)). It costs a fast stream a fifth
   * of its speed.
   */
  keepLittleUnsent(): void {
    this.setOption(IPPROTO_TCP, TCP_NOTSENT_LOWAT, unsentBytes.little);
  }

  /** Whatever the sysctls of the node say, where that is allowed. */
  #setBuffer(force: number, option: number, bytes: number): void {
    optionValue[0] = bytes;
    const { length } = optionBytes;
    if (libc.setsockopt(this.descriptor, SOL_SOCKET, force, optionBytes, length) === 0) return;
    this.setOption(SOL_SOCKET, option, bytes);
  }

  /** Binds to an address; port 0 lets the kernel choose. Throws a SystemError (EADDRINUSE, …). */
  bind(endpoint: Endpoint): void {
    const bytes = encodeSocketAddress(endpoint);
    checked(libc.bind(this.descriptor, bytes, bytes.length), "bind", text(endpoint));
  }

  /** To be bound although earlier connections linger there (TIME_WAIT). */
  reuseAddress(): this {
    this.setOption(SOL_SOCKET, SO_REUSEADDR, 1);
    return this;
  }

  /**
   * A listener's socket, to be bound: several of one owner may share the address (SO_REUSEPORT).
   */
  shareAddress(): this {
    this.reuseAddress().setOption(SOL_SOCKET, SO_REUSEPORT, 1);
    if (this.#family() === AF_INET6) this.setOption(IPPROTO_IPV6, IPV6_V6ONLY, 1);
    return this;
  }

  /**
   * Bound by {@link shareAddress} beside others: from now on nobody can join them, whatever user
   * they are.
   */
  endSharing(): void {
    this.setOption(SOL_SOCKET, SO_REUSEPORT, 0);
    this.setOption(SOL_SOCKET, SO_REUSEADDR, 0);
  }

  /** @param backlog how many connections may wait; the kernel caps it at net.core.somaxconn. */
  listen(backlog = 4096): void {
    checked(libc.listen(this.descriptor, backlog), "listen", text(this.localEndpoint()));
  }

  /**
   * Starts to connect: 0 when it is under way or done (writable, or an error pending, tells), else
   * the errno with which it failed at once.
   */
  connect(endpoint: Endpoint): number {
    const bytes = encodeSocketAddress(endpoint);
    if (libc.connect(this.descriptor, bytes, bytes.length) === 0) return 0;
    const code = errno();
    return code === EINPROGRESS ? 0 : code;
  }

  /** The next waiting connection and its peer, or the errno: EAGAIN when none waits, EMFILE, … */
  accept(): { socket: Socket; peer: Endpoint } | number {
    acceptedLength[0] = SOCKADDR_SIZE;
    const descriptor = libc.accept4(
      this.descriptor,
      acceptedAddress,
      acceptedLengthBytes,
      SOCK_NONBLOCK | SOCK_CLOEXEC,
    );
    if (descriptor === -1) return errno();
    // TCP_NODELAY and SO_LINGER are the listener's (net/core/sock.c: sk_clone).
    return { socket: new Socket(descriptor), peer: decodeSocketAddress(acceptedAddress) };
  }

  localEndpoint(): Endpoint {
    const bytes = new Uint8Array(SOCKADDR_SIZE);
    checked(
      libc.getsockname(this.descriptor, bytes, lengthOf(SOCKADDR_SIZE)),
      "getsockname",
      `socket ${this.descriptor}`,
    );
    return decodeSocketAddress(bytes);
  }

  /**
   * The pending error of the socket, cleared by asking (SO_ERROR): 0 when a connect() has
   * succeeded.
   */
  takeError(): number {
    return this.#option(SOL_SOCKET, SO_ERROR, 4).getInt32(0, true);
  }

  /**
   * Whether there is something to read, also when the other side has reset the connection since.
   */
  hasUnread(): boolean {
    return libc.recv(this.descriptor, peeked, 1n, MSG_PEEK) === 1;
  }

  /**
   * Whether it takes connections: whoever may administer its namespace can end that (SOCK_DESTROY).
   */
  get isListening(): boolean {
    return this.#option(SOL_SOCKET, SO_ACCEPTCONN, 4).getInt32(0, true) === 1;
  }

  /** The cookie of the socket's network namespace (SO_NETNS_COOKIE, Linux 5.14). */
  namespaceCookie(): bigint {
    return this.#option(SOL_SOCKET, SO_NETNS_COOKIE, 8).getBigUint64(0, true);
  }

  /**
   * A peer that has vanished while nothing is under way is noticed after three times `idleSeconds`.
   */
  keepAlive(idleSeconds: number): void {
    this.setOption(SOL_SOCKET, SO_KEEPALIVE, 1);
    this.setOption(IPPROTO_TCP, TCP_KEEPIDLE, idleSeconds);
    this.setOption(IPPROTO_TCP, TCP_KEEPINTVL, idleSeconds);
    this.setOption(IPPROTO_TCP, TCP_KEEPCNT, 2);
  }

  /** How far what was sent has come, as TCP knows it. */
  delivery(): Delivery {
    const info = this.#option(IPPROTO_TCP, TCP_INFO, TCP_INFO_FIELDS.size);
    const { retransmits, probes, unacked, lastAckReceived, notSent } = TCP_INFO_FIELDS;
    return {
      isComplete: info.getUint32(unacked, true) === 0 && info.getUint32(notSent, true) === 0,
      silentMilliseconds: info.getUint32(lastAckReceived, true),
      unansweredTries: Math.max(info.getUint8(retransmits), info.getUint8(probes)),
    };
  }

  /**
   * Sends FIN after everything written: the half-close. A connection that is already gone is no
   * error.
   */
  finish(): void {
    libc.shutdown(this.descriptor, SHUT_WR);
  }

  /**
   * Whether closing is a reset (SO_LINGER with a time of 0) or a clean end. It also decides what
   * the other side sees when the kernel closes the socket because the process has died.
   */
  resetsOnClose(whether: boolean): void {
    const linger = whether ? LINGER_0 : NO_LINGER;
    libc.setsockopt(this.descriptor, SOL_SOCKET, SO_LINGER, linger, linger.length);
  }

  /** Closes so that the other side sees RST, never a clean end. */
  reset(): void {
    if (!this.#open) return;
    this.resetsOnClose(true);
    this[Symbol.dispose]();
  }

  /**
   * Closes with FIN, and keeps nothing of the connection once that is acknowledged: neither
   * TIME_WAIT nor an orphan that waits for the other side's FIN (TCP_LINGER2 below 0,
   * tcp_rcv_state_process() in net/ipv4/tcp_input.c).
   */
  closeSwiftly(): void {
    if (!this.#open) return;
    this.setOption(IPPROTO_TCP, TCP_LINGER2, -1);
    this[Symbol.dispose]();
  }

  get closed(): boolean {
    return !this.#open;
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    libc.close(this.descriptor);
  }

  setOption(level: number, name: number, value: number): void {
    optionValue[0] = value;
    checked(
      libc.setsockopt(this.descriptor, level, name, optionBytes, optionBytes.length),
      "setsockopt",
      `option ${name} of level ${level}`,
    );
  }

  #family(): number {
    return this.#option(SOL_SOCKET, SO_DOMAIN, 4).getInt32(0, true);
  }

  /** An option's value, of `size` bytes: valid until the next call. */
  #option(level: number, name: number, size: number): DataView {
    answerLength[0] = size;
    if (libc.getsockopt(this.descriptor, level, name, answer, answerLengthBytes) !== 0) {
      throw new SystemError("getsockopt", errno(), `option ${name} of level ${level}`);
    }
    return answerView;
  }
}

/** What has become of the bytes that were written to a socket. */
export interface Delivery {
  /** The peer's kernel has them all. */
  readonly isComplete: boolean;
  /** Since it last acknowledged anything. */
  readonly silentMilliseconds: number;
  /** How often TCP has sent again, or asked for a window, without an answer. */
  readonly unansweredTries: number;
}

/** Sends `bytes`, at least one: how many were taken, or minus the errno. Never raises SIGPIPE. */
export function sendBytes(descriptor: number, bytes: Uint8Array<ArrayBuffer>): number {
  const count = libc.send(descriptor, bytes, BigInt(bytes.length), MSG_NOSIGNAL);
  return count === -1 ? -errno() : count;
}

/** For log lines: `10.0.0.1:80`, `[fd00::1]:80`. */
export function text({ address, port }: Endpoint): string {
  const host = formatAddress(address);
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

function lengthOf(size: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Uint32Array([size]).buffer);
}

const peeked = new Uint8Array(1);
/** A window of 512 KiB is 4 Gbit/s over a millisecond there and back. */
const unreadBytes = { enough: 524_288, little: 65_536 };

/** Twice 2 MiB is what the kernel lets a socket have by default at most (tcp_wmem). */
const unsentBytes = { enough: 2_097_152, little: 131_072 };

const acceptedAddress = new Uint8Array(SOCKADDR_SIZE);
const acceptedLength = new Uint32Array(1);
const acceptedLengthBytes = new Uint8Array(acceptedLength.buffer);
const optionValue = new Int32Array(1);
const optionBytes = new Uint8Array(optionValue.buffer);
const answer = new Uint8Array(256);
const answerView = new DataView(answer.buffer);
const answerLength = new Uint32Array(1);
const answerLengthBytes = new Uint8Array(answerLength.buffer);
/** struct linger { int l_onoff; int l_linger; } (sys/socket.h): on, 0 seconds. */
const LINGER_0 = new Uint8Array(new Int32Array([1, 0]).buffer);
const NO_LINGER = new Uint8Array(new Int32Array([0, 0]).buffer);

// asm-generic/socket.h, netinet/in.h, netinet/tcp.h: the same numbers on x86-64 and arm64.
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_ERROR = 4;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_KEEPALIVE = 9;
const SO_LINGER = 13;
const SO_REUSEPORT = 15;
const SO_ACCEPTCONN = 30;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SO_DOMAIN = 39;
const SO_NETNS_COOKIE = 71;
const IPPROTO_TCP = 6;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const TCP_NODELAY = 1;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_KEEPCNT = 6;
const TCP_LINGER2 = 8;
const TCP_INFO = 11;
const TCP_NOTSENT_LOWAT = 25;
/** struct tcp_info (linux/tcp.h), up to the last field that is read. */
export const TCP_INFO_FIELDS = {
  size: 148,
  retransmits: 2,
  probes: 3,
  unacked: 24,
  lastAckReceived: 56,
  notSent: 144,
} as const;
const SHUT_WR = 1;
const MSG_PEEK = 0x2;
const MSG_NOSIGNAL = 0x4000;
