import { encodeEndpoint, encodeSocketKey } from "../kernel/maps.ts";
import { SystemError } from "../native/errno.ts";
import { type Socket, text } from "../native/socket.ts";
import type { Endpoint } from "../native/socket_address.ts";
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
      this.socket.bind({ address: application.address, port: 0 });
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
