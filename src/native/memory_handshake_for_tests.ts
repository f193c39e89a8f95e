/** For tests: TLS between two sessions of one process, without sockets. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { TlsEngine, TlsSession } from "./tls_session.ts";

/** One side of a connection in memory: what its engine produces is the other's to be fed. */
export class Side {
  readonly sent: Uint8Array[] = [];

  constructor(readonly engine: TlsEngine, readonly session: TlsSession) {}

  /** Feeds the engine with all of `other`'s output, runs `action`, and keeps what comes of it. */
  turn<T>(other: Side, action: () => T): T {
    const input = Buffer.concat(other.sent.splice(0));
    this.engine.incoming.bytes.set(input);
    this.engine.feed(input.length);
    try {
      return action();
    } finally {
      this.sent.push(this.engine.outgoing.bytes.slice(0, this.engine.produced));
      this.engine.clearOutgoing();
    }
  }
}

/** Shakes hands to the end, or throws what either side throws. */
export function shakeHands(client: Side, server: Side): void {
  let [clientDone, serverDone] = [false, false];
  for (let turn = 0; turn < 10 && !(clientDone && serverDone); turn++) {
    if (!clientDone) clientDone = client.turn(server, () => client.session.handshake());
    if (!serverDone) serverDone = server.turn(client, () => server.session.handshake());
  }
  assert(clientDone && serverDone, "the handshake did not come to an end");
}
