import { readdirSync } from "node:fs";
import { parseAddress } from "../../addresses.ts";
import { OUTBOUND_PORT, TUNNEL_PORT } from "../../constants.ts";
import { listeners } from "../../kernel/plain_connections.ts";
import { EADDRINUSE, SystemError } from "../../native/errno.ts";
import { readLink } from "../../native/file_system.ts";
import type { NetworkNamespace } from "../../native/namespace.ts";
import { Socket } from "../../native/socket.ts";
import { type Endpoint, isIpv4 } from "../../native/socket_address.ts";

/**
 * A pod's listening sockets, a set for each relay worker: the kernel spreads connections over them.
 */
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

/**
 * Opens a pod's listeners in its namespace: outbound on loopback, inbound on each of the pod's
 * addresses. Throws, with nothing left open: a SystemError when the tunnel port is taken or an
 * address is gone, an Error when a process of the pod has joined its listeners before they were
 * locked.
 */
export function openListeners(
  namespace: NetworkNamespace,
  addresses: readonly string[],
  workers: number,
): PodListeners {
  const avoid = new Set<number>();
  for (;;) {
    const opened = openOnce(namespace, addresses, workers, avoid);
    const shared = sharedPort(namespace, opened);
    if (shared === undefined) return opened;
    closeListeners(opened);
    avoid.add(shared);
    if (shared === TUNNEL_PORT || avoid.size >= MOST_PORTS) {
      throw new Error(`a process of the pod shares port ${shared}, which its listeners need alone`);
    }
  }
}

/**
 * A port at which others listen, too: whoever comes after the locks cannot, so this need not be
 * asked again.
 */
function sharedPort(namespace: NetworkNamespace, opened: PodListeners): number | undefined {
  const there = listeners(namespace, [TUNNEL_PORT, opened.outboundPort]);
  if (there.length === socketsOf(opened).length) return undefined;
  // Those of an enrolment that was given up a moment ago may be there still.
  const own = ownSockets();
  return there.find(({ inode }) => !own.has(inode))?.local.port;
}

/** The inodes of this process's sockets. */
function ownSockets(): Set<number> {
  return new Set(
    readdirSync("/proc/self/fd").map((descriptor) =>
      Number(/^socket:\[(\d+)\]$/.exec(readLink(`/proc/self/fd/${descriptor}`) ?? "")?.[1])
    ),
  );
}

function openOnce(
  namespace: NetworkNamespace,
  addresses: readonly string[],
  workers: number,
  avoid: ReadonlySet<number>,
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
      const outboundPort = freePort(loopbacks, avoid);
      const sets = Array.from({ length: workers }, () => ({
        // Accepted sockets inherit it: if the agent dies, half an answer must not look like a whole
        // one.
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
 * Keeps others from sharing a port at these addresses. The kernel gives each member of a
 * SO_REUSEPORT group a part of the connections, and lets every process of the same user join, which
 * in a pod is whoever is root there, without any capability (inet_bind_conflict and
 * sk_reuseport_match in net/ipv4/inet_connection_sock.c). A bound socket that does not share is in
 * the way of all who come later, and another one at the port, which has never shared, makes the
 * kernel look: it takes a whole port for shared after the first bind.
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
  for (let attempt = 1;; attempt++) {
    const address = asideAddress();
    const socket = Socket.forAddress(address);
    try {
      socket.bind({ address, port });
      opened.push(socket);
      return socket;
    } catch (error) {
      socket[Symbol.dispose]();
      const isTaken = error instanceof SystemError && error.errno === EADDRINUSE;
      if (!isTaken || attempt === MOST_ASIDE) throw error;
    }
  }
}

/**
 * Any of 127.129.0.0 to 127.255.255.254, at which no application is likely to want a port; a
 * neighbour who would take it must guess.
 */
function asideAddress(): Uint8Array {
  const [second = 0, third = 0, fourth = 0] = crypto.getRandomValues(new Uint8Array(3));
  return parseAddress(`127.${129 + second % 127}.${third}.${1 + fourth % 254}`);
}

const MOST_ASIDE = 8;

/** A pod's processes may follow from port to port; then it is not enrolled, and says why. */
const MOST_PORTS = 4;

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

/**
 * The usual port, or one of the kernel's choice that is free on every loopback when the pod uses
 * that.
 */
function freePort(loopbacks: readonly Uint8Array[], avoid: ReadonlySet<number>): number {
  for (let attempt = 0; attempt < 10; attempt++) {
    let port = attempt === 0 && !avoid.has(OUTBOUND_PORT) ? OUTBOUND_PORT : 0;
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
