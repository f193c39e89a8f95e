/** For tests: two ends of one TCP connection in this thread's namespace. */
import { parseAddress } from "../addresses.ts";
import { Epoll, EPOLLIN } from "./epoll.ts";
import { Socket } from "./socket.ts";

/** Both ends, disposed of together. */
export interface ConnectedSockets extends Disposable {
  readonly client: Socket;
  readonly server: Socket;
}

/**
 * Connects two sockets through `address`, a loopback address. `receiveBuffer`: bytes that the
 * server's kernel keeps (socket(7), SO_RCVBUF); without it the kernel may make room for a lot.
 */
export function connectedSockets(address = "127.0.0.1", receiveBuffer?: number): ConnectedSockets {
  const loopback = parseAddress(address);
  using listener = Socket.forAddress(loopback);
  if (receiveBuffer !== undefined) listener.setOption(SOL_SOCKET, SO_RCVBUF, receiveBuffer);
  listener.bind({ address: loopback, port: 0 });
  listener.listen();
  const client = Socket.forAddress(loopback);
  const code = client.connect(listener.localEndpoint());
  if (code !== 0) throw new Error(`cannot connect: errno ${code}`);
  awaitEvents(listener, EPOLLIN);
  const accepted = listener.accept();
  if (typeof accepted === "number") throw new Error(`cannot accept: errno ${accepted}`);
  const { socket: server } = accepted;
  return {
    client,
    server,
    [Symbol.dispose]() {
      client[Symbol.dispose]();
      server[Symbol.dispose]();
    },
  };
}

/** Blocks until one of `events` (or an error) is there, for five seconds at most; says which. */
export function awaitEvents({ descriptor }: Pick<Socket, "descriptor">, events: number): number {
  using epoll = new Epoll();
  epoll.add(descriptor, events, 0, 0);
  if (epoll.wait(5000) === 0) throw new Error(`no event ${events} on descriptor ${descriptor}`);
  return epoll.events(0);
}

const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
