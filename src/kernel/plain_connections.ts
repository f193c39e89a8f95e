import type { NetworkNamespace } from "../native/namespace.ts";
import { type Ends, SocketDiagnosis, type TcpSocket, type TcpState } from "../native/sock_diag.ts";
import { sameBytes } from "../same.ts";
import { isLoopback } from "../native/socket_address.ts";

/** In which bytes of a connection may still go either way. */
const ALIVE: readonly TcpState[] = [
  "established",
  "synSent",
  "synReceived",
  "finWait1",
  "finWait2",
  "closeWait",
  "lastAck",
  "closing",
];

export interface PlainConnections {
  readonly sockets: readonly TcpSocket[];
  /** False: there were more than could be listed. */
  readonly isComplete: boolean;
}

/**
 * The connections between a pod and peers outside the tunnel, in either direction, that are open
 * now: those that are older than the pod's enrolment, or came past it. `isPeer` takes 16 address
 * bytes. Throws a SystemError.
 */
export function plainConnections(
  namespace: NetworkNamespace,
  isPeer: (address: Uint8Array<ArrayBuffer>) => boolean,
  tunnelPort: number,
): PlainConnections {
  using diagnosis = namespace.run(() => new SocketDiagnosis());
  return diagnosis.tcpSockets(ALIVE, (ends) => isPlain(ends, isPeer, tunnelPort));
}

/**
 * What became of each connection: those of "unsupported" are still open, since this kernel cannot
 * end them.
 */
export function endConnections(
  namespace: NetworkNamespace,
  sockets: readonly TcpSocket[],
): { readonly ended: number; readonly unsupported: number } {
  using diagnosis = namespace.run(() => new SocketDiagnosis());
  const results = sockets.map((socket) => diagnosis.destroy(socket));
  const unsupported = results.filter((result) => result === "unsupported").length;
  return { ended: results.length - unsupported, unsupported };
}

/**
 * The sockets that listen in the pod's namespace at one of these ports, or at any, whoever they
 * belong to. Throws a SystemError.
 */
export function listeners(
  namespace: NetworkNamespace,
  ports?: readonly number[],
): readonly TcpSocket[] {
  using diagnosis = namespace.run(() => new SocketDiagnosis());
  const isWanted = ({ local: { port } }: Ends) => ports?.includes(port) ?? true;
  return diagnosis.tcpSockets(["listening"], isWanted).sockets;
}

/** Ends the connections that wait for an answer from a port of loopback. Throws a SystemError. */
export function endWaiting(namespace: NetworkNamespace, port: number): void {
  using diagnosis = namespace.run(() => new SocketDiagnosis());
  const waits = ({ remote }: Ends) => remote.port === port && isLoopback(remote.address);
  for (const socket of diagnosis.tcpSockets(["synSent"], waits).sockets) diagnosis.destroy(socket);
}

/** Exported for its test. */
export function isPlain(
  { local, remote }: Ends,
  isPeer: (address: Uint8Array<ArrayBuffer>) => boolean,
  tunnelPort: number,
): boolean {
  // The relay's own ends, and what another mesh's sidecar passes on for it.
  if (local.port === tunnelPort || remote.port === tunnelPort) return false;
  // Inside the pod: from an application to the relay, and from it to one.
  if (isLoopback(local.address) || isLoopback(remote.address)) return false;
  // The pod with itself: the relay dials the application at the pod's own address, which is a
  // peer's for others.
  if (sameBytes(local.address, remote.address)) return false;
  return isPeer(remote.address);
}
