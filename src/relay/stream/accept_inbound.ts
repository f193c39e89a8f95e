/**
 * The inbound side of a pod, in the order a connection takes:
 *
 *   accept      a peer's relay connects to the pod's tunnel port
 *   handshake   the client's chain and identity are verified (inbound.ts)
 *   OPEN        which port of the pod, and for which client address, which must be the certificate's own, and the
 *               registry's
 *   dial        the application is connected from inside the pod, with the client's address noted for it
 *   stream      ACCEPT, then bytes both ways; after both ENDs the tunnel waits for the next OPEN
 */
import { sendBytes, type Socket, text } from "../../native/socket.ts";
import type { Endpoint } from "../../native/socket_address.ts";
import { Inbound } from "./inbound.ts";
import type { RelayPod } from "./pod.ts";
import { isOwnProof } from "./proof.ts";

/**
 * How many a pod may have to itself for which there need not be room: one handshake at a time
 * proves it.
 */
const MOST_EXEMPT = 4;

/** Takes a connection to the pod's tunnel port. `local` is the pod's address it was made to. */
export function acceptInbound(
  pod: RelayPod,
  socket: Socket,
  source: Endpoint,
  local: Uint8Array,
): void {
  // The agent's proofs come from the pod's own address. Its applications can, too.
  const isExempt = isOwnProof(pod, source) && pod.fromItself < MOST_EXEMPT;
  if (!isExempt && !pod.makeRoom("inbound")) {
    refuseTunnel(socket);
    const message = "refused a tunnel: too many connections are open (--max-connections)";
    return pod.refuse("too_many_connections", message, { source: text(source) });
  }
  new Inbound(pod, socket, source, local);
}

/**
 * Closes a connection with the alert `internal_error` (RFC 8446 section 6.2) in place of a
 * ServerHello. A reset alone would tell the peer's relay that nobody listens yet, which it waits
 * for and tries again.
 */
function refuseTunnel(socket: Socket): void {
  sendBytes(socket.descriptor, INTERNAL_ERROR);
  socket.closeSwiftly();
}

/**
 * A TLS record that is an alert (21), version 3.3, of two bytes: fatal (2), internal_error (80).
 */
const INTERNAL_ERROR = new Uint8Array([21, 3, 3, 0, 2, 2, 80]);
