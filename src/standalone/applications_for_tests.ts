/** For tests: the applications at both ends of a relay, and their sockets. */
import { parseAddress } from "../addresses.ts";
import { EAGAIN } from "../native/errno.ts";
import { ScatterBuffer } from "../native/scatter.ts";
import { sendBytes, Socket, text } from "../native/socket.ts";
import type { Endpoint } from "../native/socket_address.ts";
import { Pending } from "../relay/loop/pending.ts";

/** An application's connection, read whenever the bench turns. */
export class Application {
  received = "";
  /** `fin`, `reset`, or empty while it is open. */
  end = "";

  constructor(readonly socket: Socket) {}

  read(): void {
    for (; this.end === "" && !this.socket.closed;) {
      buffer.clear();
      buffer.add(0, buffer.bytes.length);
      const count = buffer.receive(this.socket.descriptor);
      if (count === -EAGAIN) return;
      if (count > 0) this.received += new TextDecoder().decode(buffer.bytes.subarray(0, count));
      else this.end = count === 0 ? "fin" : "reset";
    }
  }

  /** Says how many bytes were taken. */
  send(payload: string | Uint8Array<ArrayBuffer>): number {
    const encoded = typeof payload === "string" ? new TextEncoder().encode(payload) : payload;
    return sendBytes(this.socket.descriptor, encoded);
  }

  finish(): void {
    this.socket.finish();
  }

  reset(): void {
    this.socket.reset();
  }
}

export class ListeningApplication implements Disposable {
  readonly #listener: Socket;
  readonly connections: Application[] = [];
  /** Where the connections have come from. */
  readonly sources: string[] = [];

  constructor(readonly endpoint: Endpoint) {
    this.#listener = Socket.forAddress(endpoint.address).reuseAddress();
    this.#listener.bind(endpoint);
    this.#listener.listen();
  }

  /** The last connection, if one has come. */
  accept(): Application | undefined {
    for (;;) {
      const result = this.#listener.accept();
      if (typeof result === "number") break;
      this.connections.push(new Application(result.socket));
      this.sources.push(text(result.peer));
    }
    for (const connection of this.connections) connection.read();
    return this.connections.at(-1);
  }

  [Symbol.dispose](): void {
    this.#listener[Symbol.dispose]();
    for (const { socket } of this.connections) socket[Symbol.dispose]();
  }
}

/**
 * The next call that sends `buffer` finds a socket with room for so many bytes; no event tells when
 * there is more.
 */
export function takesOnly(count: number, buffer: ScatterBuffer): void {
  buffer.send = (descriptor) => {
    delete (buffer as { send?: unknown }).send;
    if (count === 0) return -EAGAIN;
    const all = new Uint8Array(buffer.length);
    buffer.copyRest(0, all, 0);
    return sendBytes(descriptor, all.subarray(0, count));
  };
}

/** Until the other end's kernel has all that was sent; no loop has a turn meanwhile. */
export function awaitDelivery(socket: Socket): void {
  const end = performance.now() + PATIENCE_MILLISECONDS;
  while (!socket.delivery().isComplete) {
    if (performance.now() > end) {
      throw new Error("what was sent does not fit the receiver's buffer");
    }
  }
}

/** So many of the process's receivers are slow. */
export function slowReceivers(count: number): Disposable {
  const one = new ScatterBuffer(1);
  one.add(0, 1);
  const all = Array.from({ length: count }, () => new Pending());
  for (const pending of all) pending.keep(one, 0);
  return { [Symbol.dispose]: () => all.forEach((pending) => pending.drop()) };
}

/** As small as the kernel lets them be (SO_SNDBUF, SO_RCVBUF of asm-generic/socket.h). */
export function shrink(socket: Socket): void {
  socket.setOption(1, 7, 1);
  socket.setOption(1, 8, 1);
}

export function endpoint(address: string, port: number): Endpoint {
  return { address: bytes(address), port };
}

export function bytes(address: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(parseAddress(address));
}

/** How long a condition may take, by the real clock. */
export const PATIENCE_MILLISECONDS = 5_000;

const buffer = new ScatterBuffer(262_144);
