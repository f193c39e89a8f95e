import { encodeOrigin, encodeSocketKey } from "../../kernel/maps.ts";
import { EADDRINUSE, EADDRNOTAVAIL, SystemError } from "../../native/errno.ts";
import { type Socket, text } from "../../native/socket.ts";
import { type Endpoint, isIpv4 } from "../../native/socket_address.ts";
import type { RelayPod } from "./pod.ts";

/** So many of the relay's own ports in a row would have to be taken. */
const ATTEMPTS = 16;

/** The usual ip_local_port_range, where no application expects to listen. */
const FIRST_PORT = 32_768;
const PORTS = 28_232;

/**
 * A connection from the inbound relay to an application of its pod. The `origins` map says whose it
 * really is from before the SYN until {@link forgetClient}; the kernel keeps that with the
 * application's socket, so the application sees the client in accept() already, and when the relay
 * has closed long before that.
 */
export class ApplicationDial implements Disposable {
  readonly began: number;
  readonly #originKey: Uint8Array<ArrayBuffer>;

  private constructor(
    readonly pod: RelayPod,
    /** Is connecting. */
    readonly socket: Socket,
    /** Which of the pod's addresses it comes from. */
    readonly from: "loopback" | "pod",
    source: Endpoint,
    application: Endpoint,
    client: Endpoint,
  ) {
    this.began = pod.worker.now();
    try {
      socket.resetsOnClose(true); // if the agent dies, half a request must not look like a whole one
      if (source.port !== 0) socket.reuseAddress();
      socket.bind(source);
      const own = source.port === 0 ? socket.localEndpoint() : source;
      this.#originKey = encodeSocketKey(pod.description.cookie, own);
      // Another connection may have the port, to another port of the application.
      if (!pod.worker.origins.add(this.#originKey, encodeOrigin(client, application))) {
        throw new SystemError("bind", EADDRINUSE, text(own));
      }
    } catch (error) {
      socket[Symbol.dispose]();
      throw error;
    }
    const errno = socket.connect(application);
    if (errno !== 0) {
      this[Symbol.dispose]();
      throw new SystemError("connect", errno, text(application));
    }
  }

  /**
   * Starts to connect to `application`, an address of the pod's own, from a loopback address where
   * the family has many of them and `from` does not say otherwise. Throws a SystemError.
   */
  static start(
    pod: RelayPod,
    application: Endpoint,
    client: Endpoint,
    from: "loopback" | "pod",
  ): ApplicationDial {
    const { address } = application;
    const side = isIpv4(address) ? from : "pod";
    for (let attempt = 1;; attempt++) {
      const socket = pod.socketFor(address);
      const source = from === "pod" ? { address, port: 0 } : sourceFor(application);
      try {
        return new ApplicationDial(pod, socket, side, source, application, client);
      } catch (error) {
        if (attempt === ATTEMPTS || !isTaken(error)) throw error;
      }
    }
  }

  /** To be called when the socket is closed: its port may become another connection's. */
  forgetClient(): void {
    this.pod.worker.origins.delete(this.#originKey);
  }

  [Symbol.dispose](): void {
    this.socket[Symbol.dispose]();
    this.forgetClient();
  }
}

/**
 * The relay's own address towards an application, which only tools like ss ever see. A port stays
 * taken for a minute after its connection has ended (TIME_WAIT), and one address has only some
 * 28,000. For IPv4 it is another one of 127.128.0.0/20 each time. For IPv6 it is the pod's own, and
 * a port that was asked for, since such a one may be taken again at once (tcp_twsk_unique() in
 * net/ipv4/tcp_ipv4.c, called without a place for what it finds).
 */
function sourceFor({ address }: Endpoint): Endpoint {
  const turn = lastTurn = (lastTurn + 1) % (1 << 30);
  if (!isIpv4(address)) return { address, port: FIRST_PORT + turn % PORTS };
  const source = address.slice();
  source.set([127, 128, (turn >> 8) & 15, turn & 255], 12);
  return { address: source, port: 0 };
}

/** Anywhere, so that two workers seldom ask for the same. */
let lastTurn = Math.floor(Math.random() * PORTS);

function isTaken(error: unknown): boolean {
  return error instanceof SystemError &&
    (error.errno === EADDRINUSE || error.errno === EADDRNOTAVAIL);
}
