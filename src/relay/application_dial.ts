import { encodeEndpoint, encodeSocketKey } from "../kernel/maps.ts";
import { SystemError } from "../native/errno.ts";
import { type Socket, text } from "../native/socket.ts";
import { type Endpoint, isIpv4 } from "../native/socket_address.ts";
import type { RelayPod } from "./pod.ts";

/**
 * A connection from the inbound relay to an application of its pod. The `origins` map says whose it really
 * is from before the SYN until {@link forgetClient}, so the application sees the client in accept() already.
 */
export class ApplicationDial implements Disposable {
  readonly socket: Socket;
  readonly #originKey: Uint8Array<ArrayBuffer>;

  /** Starts to connect to `application`, an address of the pod's own. Throws a SystemError. */
  constructor(readonly pod: RelayPod, application: Endpoint, client: Endpoint) {
    this.socket = pod.socketFor(application.address);
    try {
      this.socket.resetsOnClose(true); // if the agent dies, half a request must not look like a whole one
      this.socket.bind({ address: sourceFor(application.address), port: 0 });
      this.#originKey = encodeSocketKey(pod.description.cookie, this.socket.localEndpoint());
      pod.bench.origins.set(this.#originKey, encodeEndpoint(client));
    } catch (error) {
      this.socket[Symbol.dispose]();
      throw error;
    }
    const errno = this.socket.connect(application);
    if (errno !== 0) {
      this[Symbol.dispose]();
      throw new SystemError("connect", errno, text(application));
    }
  }

  /** To be called when the socket is closed: its port may become another connection's. */
  forgetClient(): void {
    this.pod.bench.origins.delete(this.#originKey);
  }

  [Symbol.dispose](): void {
    this.socket[Symbol.dispose]();
    this.forgetClient();
  }
}

/**
 * The relay's own address towards an application, which only tools like ss ever see. For IPv4 another one of
 * 127.128.0.0/20 each time: a port stays taken for a minute after its connection has ended (TIME_WAIT), and
 * one address has only some 28,000 of them.
 */
function sourceFor(application: Uint8Array): Uint8Array {
  if (!isIpv4(application)) return application;
  const next = lastSource = (lastSource + 1) % 4096;
  const address = application.slice();
  address.set([127, 128, next >> 8, next & 0xff], 12);
  return address;
}

let lastSource = 0;
