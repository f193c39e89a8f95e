import { ENOENT, EOPNOTSUPP, SystemError } from "./errno.ts";
import { Netlink, NETLINK_SOCK_DIAG, NLM_F_ACK, NLM_F_DUMP } from "./netlink.ts";
import { AF_INET, AF_INET6, type Endpoint, IPV4_MAPPED } from "./socket_address.ts";

/** States of a TCP socket (netinet/tcp.h). */
export const TCP_STATES = {
  established: 1,
  synSent: 2,
  synReceived: 3,
  finWait1: 4,
  finWait2: 5,
  timeWait: 6,
  closed: 7,
  closeWait: 8,
  lastAck: 9,
  listening: 10,
  closing: 11,
} as const;

export type TcpState = keyof typeof TCP_STATES;

/** A TCP socket of a network namespace, as the kernel describes it. */
export interface TcpSocket {
  readonly state: TcpState;
  /** IPv4 also of an IPv6 socket that speaks it. */
  readonly local: Endpoint;
  readonly remote: Endpoint;
  /** Of the process that made it. */
  readonly uid: number;
  /** 0 when no process holds it any more. */
  readonly inode: number;
  /** The kernel's name of the socket, never used twice. */
  readonly cookie: bigint;
  /** `struct inet_diag_sockid` and its family, by which the kernel finds it again. */
  readonly identity: { readonly family: number; readonly id: Uint8Array<ArrayBuffer> };
}

/** Both ends of a socket, lent: the next one's are in the same objects. */
export type Ends = Readonly<Record<"local" | "remote", End>>;

interface End {
  readonly address: Uint8Array<ArrayBuffer>;
  readonly port: number;
}

/**
 * The TCP sockets of the network namespace in which the thread stands when this is made
 * (sock_diag(7)).
 */
export class SocketDiagnosis implements Disposable {
  /** Throws a SystemError. */
  readonly #netlink = new Netlink(NETLINK_SOCK_DIAG);

  /**
   * The sockets in one of these states, both families, of which `isWanted` says so. There may be
   * more than `limit`: then it says that it is not complete. Throws a SystemError.
   *
   * @param isWanted is asked of each: a pod may have tens of thousands of connections, and what is
   * not wanted takes no memory.
   */
  tcpSockets(
    states: readonly TcpState[],
    isWanted: (ends: Ends) => boolean = () => true,
    limit = 65_536,
  ): { readonly sockets: readonly TcpSocket[]; readonly isComplete: boolean } {
    const sockets: TcpSocket[] = [];
    let count = 0;
    const mask = states.reduce((mask, state) => mask | 1 << TCP_STATES[state], 0);
    this.#netlink.ask(
      "sock_diag",
      TCPDIAG_GETSOCK,
      NLM_F_DUMP,
      encodeDump(mask),
      ({ payload }) => {
        const socket = decodeSocket(payload);
        if (socket !== undefined) sockets.push(socket);
      },
      (view, start, end) =>
        ++count <= limit && end - start >= MESSAGE_SIZE && isWanted(readEnds(view, start)),
    );
    return { sockets, isComplete: count <= limit };
  }

  /**
   * Ends a connection as if it had been reset from both sides: its process gets ECONNABORTED, its
   * peer an RST. "unsupported": the kernel was built without CONFIG_INET_DIAG_DESTROY. Throws a
   * SystemError.
   */
  destroy({ identity: { family, id } }: TcpSocket): "destroyed" | "gone" | "unsupported" {
    try {
      this.#netlink.ask("SOCK_DESTROY", SOCK_DESTROY, NLM_F_ACK, encodeRequest(family, -1, id));
      return "destroyed";
    } catch (error) {
      if (error instanceof SystemError && error.errno === ENOENT) return "gone";
      if (error instanceof SystemError && error.errno === EOPNOTSUPP) return "unsupported";
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#netlink[Symbol.dispose]();
  }
}

/**
 * `struct inet_diag_req`, the older request, which asks for both families at once
 * (inet_diag_dump_compat in net/ipv4/inet_diag.c): each dump walks through the tables of the whole
 * node, whatever namespace it is for.
 */
function encodeDump(states: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4 + SOCKET_ID_SIZE + 8);
  new DataView(bytes.buffer).setInt32(4 + SOCKET_ID_SIZE, states, true);
  return bytes;
}

/** `struct inet_diag_req_v2`. */
function encodeRequest(family: number, states: number, id: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(REQUEST_ID + SOCKET_ID_SIZE);
  bytes[0] = family;
  bytes[1] = IPPROTO_TCP;
  new DataView(bytes.buffer).setInt32(4, states, true);
  bytes.set(id, REQUEST_ID);
  return bytes;
}

/**
 * `struct inet_diag_msg`; undefined when it is cut short, or its state or family is none that there
 * was.
 */
export function decodeSocket(bytes: Uint8Array<ArrayBuffer>): TcpSocket | undefined {
  if (bytes.length < MESSAGE_SIZE) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const family = view.getUint8(0);
  const state = STATE_NAMES.get(view.getUint8(1));
  if (state === undefined || (family !== AF_INET && family !== AF_INET6)) return undefined;
  const id = bytes.slice(MESSAGE_ID, MESSAGE_ID + SOCKET_ID_SIZE);
  const endpoint = (port: number, address: number): Endpoint => ({
    address: addressOf(family, id.subarray(address, address + 16)),
    port: view.getUint16(MESSAGE_ID + port),
  });
  return {
    state,
    local: endpoint(0, 4),
    remote: endpoint(2, 20),
    uid: view.getUint32(64, true),
    inode: view.getUint32(68, true),
    cookie: view.getBigUint64(MESSAGE_ID + 40, true),
    identity: { family, id },
  };
}

function addressOf(family: number, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const address = new Uint8Array(16);
  address.set(family === AF_INET6 ? bytes : IPV4_MAPPED);
  if (family === AF_INET) address.set(bytes.subarray(0, 4), 12);
  return address;
}

/** Both ends in the `struct inet_diag_msg` at `start`. */
function readEnds(view: DataView, start: number): Ends {
  const isIpv4 = view.getUint8(start) === AF_INET;
  readEnd(ends.local, view, isIpv4, start + MESSAGE_ID, start + MESSAGE_ID + 4);
  readEnd(ends.remote, view, isIpv4, start + MESSAGE_ID + 2, start + MESSAGE_ID + 20);
  return ends;
}

function readEnd(
  end: { readonly address: Uint8Array; port: number },
  view: DataView,
  isIpv4: boolean,
  port: number,
  address: number,
): void {
  end.port = view.getUint16(port);
  if (isIpv4) end.address.set(IPV4_MAPPED);
  const skipped = isIpv4 ? 12 : 0;
  for (let index = skipped; index < 16; index++) {
    end.address[index] = view.getUint8(address + index - skipped);
  }
}

const ends = {
  local: { address: new Uint8Array(16), port: 0 },
  remote: { address: new Uint8Array(16), port: 0 },
};

const STATE_NAMES = new Map<number, TcpState>(
  Object.entries(TCP_STATES).map(([name, number]) => [number, name as TcpState]),
);

// linux/inet_diag.h, linux/sock_diag.h, netinet/in.h
const TCPDIAG_GETSOCK = 18;
const SOCK_DESTROY = 21;
const IPPROTO_TCP = 6;

/**
 * linux/inet_diag.h: where the socket's identity lies in a request and in a message, and how long
 * both are.
 */
const REQUEST_ID = 8;
const MESSAGE_ID = 4;
const SOCKET_ID_SIZE = 48;
const MESSAGE_SIZE = 72;
