import { parseAddress } from "../../addresses.ts";
import { OUTBOUND_PORT, TUNNEL_PORT } from "../../constants.ts";
import { EADDRINUSE, SystemError } from "../../native/errno.ts";
import type { NetworkNamespace } from "../../native/namespace.ts";
import { Socket } from "../../native/socket.ts";
import { type Endpoint, isIpv4 } from "../../native/socket_address.ts";

/** A pod's listening sockets, a set for each relay worker: the kernel spreads connections over them. */
export interface PodListeners {
  readonly outboundPort: number;
  /** The cookie of the namespace they belong to. */
  readonly cookie: bigint;
  readonly sets: readonly { readonly outbound: Socket[]; readonly inbound: Socket[] }[];
  /** Bound beside them, and never listening: they keep others from joining the sets. */
  readonly locks: readonly Socket[];
}

const LOOPBACK4 = parseAddress("127.0.0.1");
const LOOPBACK6 = parseAddress("::1");

/** Of the whole of 127.0.0.0/8, addresses at which no application is likely to want the ports of listeners. */
const ASIDE = ["127.127.255.254", "127.126.255.253", "127.125.255.252"].map(parseAddress);

/**
 * Opens a pod's listeners in its namespace: outbound on loopback, inbound on each of the pod's addresses.
 * Throws a SystemError when the tunnel port is taken or an address is gone, with nothing left open.
 */
export function openListeners(
  namespace: NetworkNamespace,
  addresses: readonly string[],
  workers: number,
): PodListeners {
  const opened: Socket[] = [];
  const listen = (endpoint: Endpoint): Socket => {
    const socket = Socket.forAddress(endpoint.address).shareAddress();
    opened.push(socket);
    socket.bind(endpoint);
    socket.listen();
    return socket;
  };
  const all = addresses.map(parseAddress);
  const loopbacks = [LOOPBACK4, LOOPBACK6].filter((loopback) =>
    all.some((address) => isIpv4(address) === isIpv4(loopback))
  );
  try {
    return namespace.run(() => {
      const outboundPort = freePort(loopbacks);
      const sets = Array.from({ length: workers }, () => ({
        // Accepted sockets inherit it: if the agent dies, half an answer must not look like a whole one.
        outbound: loopbacks.map((address) => resetting(listen({ address, port: outboundPort }))),
        inbound: all.map((address) => listen({ address, port: TUNNEL_PORT })),
      }));
      const first = opened[0];
      if (first === undefined) throw new RangeError("a pod without addresses cannot be enrolled");
      const locks = [
        ...lock(outboundPort, loopbacks, opened),
        ...lock(TUNNEL_PORT, all, opened),
      ];
      return { outboundPort, cookie: first.namespaceCookie(), sets, locks };
    });
  } catch (error) {
    for (const socket of opened) socket[Symbol.dispose]();
    throw error;
  }
}

/**
 * Keeps others from sharing a port at these addresses. The kernel gives each member of a SO_REUSEPORT group a part of the
 * connections, and lets every process of the same user join, which in a pod is whoever is root there, without any
 * capability (inet_bind_conflict and sk_reuseport_match in net/ipv4/inet_connection_sock.c). A bound socket that does not
 * share is in the way of all who come later, and another one at the port, which has never shared, makes the kernel
 * look: it takes a whole port for shared after the first bind.
 */
function lock(port: number, addresses: readonly Uint8Array[], opened: Socket[]): Socket[] {
  const locks = addresses.map((address) => {
    const socket = Socket.forAddress(address).shareAddress();
    opened.push(socket);
    socket.bind({ address, port });
    socket.endSharing();
    return socket;
  });
  return [...locks, aside(port, opened)];
}

function aside(port: number, opened: Socket[]): Socket {
  for (const [index, address] of ASIDE.entries()) {
    const socket = Socket.forAddress(address);
    try {
      socket.bind({ address, port });
      opened.push(socket);
      return socket;
    } catch (error) {
      socket[Symbol.dispose]();
      const isTaken = error instanceof SystemError && error.errno === EADDRINUSE;
      if (!isTaken || index === ASIDE.length - 1) throw error;
    }
  }
  throw new RangeError("there is no address");
}

function resetting(listener: Socket): Socket {
  listener.resetsOnClose(true);
  return listener;
}

/** Closes listeners that no worker was given; what waits in them is reset. */
export function closeListeners(listeners: PodListeners): void {
  for (const socket of socketsOf(listeners)) socket[Symbol.dispose]();
  unlock(listeners);
}

/** Others may share the ports again, those that open a pod's listeners anew first of all. */
export function unlock({ locks }: PodListeners): void {
  for (const socket of locks) socket[Symbol.dispose]();
}

/** All of a pod's listening sockets. */
export function socketsOf({ sets }: PodListeners): Socket[] {
  return sets.flatMap(({ outbound, inbound }) => [...outbound, ...inbound]);
}

/** The usual port, or one of the kernel's choice that is free on every loopback when the pod uses that. */
function freePort(loopbacks: readonly Uint8Array[]): number {
  for (let attempt = 0; attempt < 10; attempt++) {
    let port = attempt === 0 ? OUTBOUND_PORT : 0;
    const probes: Socket[] = [];
    try {
      for (const address of loopbacks) {
        // Without SO_REUSEPORT: a port that the application shares would get our connections too.
        const probe = Socket.forAddress(address).reuseAddress();
        probes.push(probe);
        probe.bind({ address, port });
        port = probe.localEndpoint().port;
      }
      return port;
    } catch (error) {
      if (!(error instanceof SystemError) || error.errno !== EADDRINUSE) throw error;
    } finally {
      for (const probe of probes) probe[Symbol.dispose]();
    }
  }
  throw new Error("no port of the pod's loopback is free for the outbound listener");
}
