import { checked, EINTR, errno, SystemError } from "./errno.ts";
import { libc } from "./libc.ts";

/** One message of the kernel's answer: what follows its header. */
export interface NetlinkMessage {
  readonly type: number;
  readonly payload: Uint8Array<ArrayBuffer>;
}

/**
 * A netlink socket (netlink(7)) of the network namespace in which the thread stands when it is
 * opened, and in which it stays. Connected to the kernel: nobody else's messages arrive, whatever
 * rights he has in that namespace.
 */
export class Netlink implements Disposable {
  readonly #descriptor: number;
  #sequence = 0;
  #open = true;

  /** `protocol`: NETLINK_ROUTE or NETLINK_SOCK_DIAG. Throws a SystemError. */
  constructor(protocol: number) {
    const about = "a netlink socket";
    this.#descriptor = checked(
      libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol),
      "socket",
      about,
    );
    try {
      // struct sockaddr_nl: the family, padding, then the kernel's port and no group, both 0.
      const kernel = new Uint8Array(12);
      new DataView(kernel.buffer).setUint16(0, AF_NETLINK, true);
      checked(libc.connect(this.#descriptor, kernel, kernel.length), "connect", about);
      const patience = new Uint8Array(new BigInt64Array([PATIENCE_SECONDS, 0n]).buffer);
      checked(
        libc.setsockopt(this.#descriptor, SOL_SOCKET, SO_RCVTIMEO, patience, patience.length),
        "setsockopt",
        about,
      );
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Asks the kernel and hands on each message of its answer; `flags` are NLM_F_DUMP or NLM_F_ACK,
   * which make it say where its answer ends, and others. Throws a SystemError: `call` names it, its
   * errno is the kernel's.
   *
   * @param isWanted whether the message whose payload lies from `start` to `end` is to be handed
   * on: an answer may be of very many, and those that are not take no memory.
   */
  ask(
    call: string,
    type: number,
    flags: number,
    payload: Uint8Array,
    each: (message: NetlinkMessage) => void = () => {},
    isWanted?: (view: DataView, start: number, end: number) => boolean,
  ): void {
    const sequence = ++this.#sequence;
    const request = encodeRequest(type, flags | NLM_F_REQUEST, sequence, payload);
    checked(libc.send(this.#descriptor, request, BigInt(request.length), 0), "send", call);
    for (;;) {
      const length = Number(libc.read(this.#descriptor, buffer, BigInt(BUFFER_SIZE)));
      if (length === -1) {
        const code = errno();
        if (code === EINTR) continue;
        throw new SystemError("read", code, `the kernel's answer to ${call}`);
      }
      const answer = decodeAnswer(buffer.subarray(0, length), sequence, isWanted);
      answer.messages.forEach(each);
      if (answer.code === undefined) continue;
      if (answer.code !== 0) throw new SystemError(call, answer.code, "asked by netlink");
      return;
    }
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    libc.close(this.#descriptor);
  }
}

/** `struct nlmsghdr` (length, type, flags, sequence, port) and what follows it. */
function encodeRequest(
  type: number,
  flags: number,
  sequence: number,
  payload: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_SIZE + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, sequence, true);
  bytes.set(payload, HEADER_SIZE);
  return bytes;
}

/**
 * The messages of one datagram that answer the request `sequence` and are wanted, as copies; `code`
 * is 0 or an errno when they are the last. Throws an Error when lengths contradict each other.
 */
export function decodeAnswer(
  bytes: Uint8Array<ArrayBuffer>,
  sequence: number,
  isWanted: (view: DataView, start: number, end: number) => boolean = () => true,
): { readonly messages: readonly NetlinkMessage[]; readonly code: number | undefined } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const messages: NetlinkMessage[] = [];
  for (let start = 0; start < bytes.length;) {
    const rest = bytes.length - start;
    const length = rest < HEADER_SIZE ? 0 : view.getUint32(start, true);
    if (length < HEADER_SIZE || length > rest) {
      throw new Error(`a netlink message of ${length} bytes where ${rest} are left`);
    }
    const type = view.getUint16(start + 4, true);
    if (view.getUint32(start + 8, true) === sequence) {
      const [from, end] = [start + HEADER_SIZE, start + length];
      if (type === NLMSG_ERROR || type === NLMSG_DONE) {
        return { messages, code: endOf(bytes.slice(from, end)) };
      }
      if (isWanted(view, from, end)) messages.push({ type, payload: bytes.slice(from, end) });
    }
    start += align(length);
  }
  return { messages, code: undefined };
}

/** The errno with which an answer ends. */
function endOf(payload: Uint8Array<ArrayBuffer>): number {
  // A dump that ends well may end without a word on it.
  return payload.length < 4 ? 0 : Math.abs(new DataView(payload.buffer).getInt32(0, true));
}

/** An attribute: length, type, value, and zeros up to the next multiple of four (struct nlattr). */
export function attribute(type: number, ...values: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const length = ATTRIBUTE_HEADER_SIZE + values.reduce((sum, value) => sum + value.length, 0);
  const bytes = new Uint8Array(align(length));
  const view = new DataView(bytes.buffer);
  view.setUint16(0, length, true);
  view.setUint16(2, type, true);
  let offset = ATTRIBUTE_HEADER_SIZE;
  for (const value of values) {
    bytes.set(value, offset);
    offset += value.length;
  }
  return bytes;
}

/**
 * The values of attributes by type; of two of one type the last. Throws an Error when lengths
 * contradict each other.
 */
export function attributes(bytes: Uint8Array<ArrayBuffer>): Map<number, Uint8Array<ArrayBuffer>> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const found = new Map<number, Uint8Array<ArrayBuffer>>();
  for (let start = 0; start < bytes.length;) {
    const rest = bytes.length - start;
    const length = rest < ATTRIBUTE_HEADER_SIZE ? 0 : view.getUint16(start, true);
    if (length < ATTRIBUTE_HEADER_SIZE || length > rest) {
      throw new Error(`a netlink attribute of ${length} bytes where ${rest} are left`);
    }
    const type = view.getUint16(start + 2, true) & NLA_TYPE_MASK;
    found.set(type, bytes.slice(start + ATTRIBUTE_HEADER_SIZE, start + length));
    start += align(length);
  }
  return found;
}

function align(length: number): number {
  return (length + 3) & ~3;
}

// linux/netlink.h
const HEADER_SIZE = 16;
const ATTRIBUTE_HEADER_SIZE = 4;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_REQUEST = 1;
const NLA_TYPE_MASK = 0x3fff;
export const NLM_F_ACK = 4;
export const NLM_F_DUMP = 0x300;
export const NLM_F_EXCL = 0x200;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_CREATE = 0x400;
export const NETLINK_ROUTE = 0;
export const NETLINK_SOCK_DIAG = 4;

// bits/socket.h, asm-generic/socket.h, bits/socket_type.h
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;

/** The kernel answers at once; what does not answer must not stop the agent. */
const PATIENCE_SECONDS = 2n;

/** The kernel puts at most 32 KiB into one datagram (net/netlink/af_netlink.c: netlink_dump). */
const BUFFER_SIZE = 65_536;

/** Of all sockets of the thread: an answer is copied out of it before anybody else can ask. */
const buffer = new Uint8Array(BUFFER_SIZE);
