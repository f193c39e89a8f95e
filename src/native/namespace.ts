import { checked, errno, errnoName } from "./errno.ts";
import { readLink } from "./file_system.ts";
import { cString, libc } from "./libc.ts";
import { AF_INET, AF_INET6, decodeSocketAddress, SOCKADDR_SIZE } from "./socket_address.ts";

/**
 * A network namespace held open, so that its inode number cannot be given to another one meanwhile.
 */
export class NetworkNamespace implements Disposable {
  #open = true;

  /** Takes over `descriptor`. */
  constructor(readonly descriptor: number) {}

  /** Opens a namespace file, such as /proc/1234/ns/net. Throws a SystemError. */
  static open(path: string): NetworkNamespace {
    return new NetworkNamespace(
      checked(libc.open(cString(path), O_RDONLY | O_CLOEXEC), "open", path),
    );
  }

  /**
   * Runs `action` with the calling thread standing in this namespace, and comes back. `action` may
   * only make sockets and ask libc: it must not await, and must start nothing of Deno's own network
   * or files.
   */
  run<T>(action: () => T): T {
    checked(
      libc.setns(this.descriptor, CLONE_NEWNET),
      "setns",
      "entering a pod's network namespace",
    );
    try {
      return action();
    } finally {
      // A thread left in a pod's namespace would open the next pod's listeners there: never go on.
      if (libc.setns(home, CLONE_NEWNET) !== 0) {
        console.error(`fatal: setns back to the node failed with ${errnoName(errno())}`);
        libc.abort();
      }
    }
  }

  /**
   * Every IP address that the namespace's interfaces hold: 16 bytes each, IPv4 mapped
   * (getifaddrs(3)). Throws an Error where there are too many.
   */
  addresses(): Uint8Array[] {
    return this.run(interfaceAddresses);
  }

  /**
   * What the kernel calls the user namespace that owns this one, "user:[4026531837]" (ioctl_ns(2):
   * NS_GET_USERNS). Throws a SystemError: EPERM, when it is none that we may see.
   */
  owner(): string {
    const descriptor = checked(
      libc.ioctl(this.descriptor, NS_GET_USERNS),
      "ioctl NS_GET_USERNS",
      "a network namespace's owner",
    );
    try {
      return readLink(`/proc/self/fd/${descriptor}`) ?? "unknown";
    } finally {
      libc.close(descriptor);
    }
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    libc.close(this.descriptor);
  }
}

/**
 * struct ifaddrs (ifaddrs.h), 8-byte pointers: ifa_next 0, ifa_name 8, ifa_flags 16, ifa_addr 24.
 */
function interfaceAddresses(): Uint8Array[] {
  const head = new BigUint64Array(1);
  checked(libc.getifaddrs(new Uint8Array(head.buffer)), "getifaddrs", "a pod's addresses");
  const list = Deno.UnsafePointer.create(head[0] ?? 0n);
  const found: Uint8Array[] = [];
  try {
    // SAFETY: the list stays valid until freeifaddrs below; ifa_addr may be NULL, and points to a
    // sockaddr at least as long as its family's.
    for (let entry = list; entry !== null;) {
      const view = new Deno.UnsafePointerView(entry);
      const address = view.getPointer(24);
      if (address !== null) {
        const socketAddress = new Deno.UnsafePointerView(address);
        const family = socketAddress.getUint16(0);
        if (family === AF_INET || family === AF_INET6) {
          const bytes = new Uint8Array(SOCKADDR_SIZE);
          socketAddress.copyInto(bytes.subarray(0, family === AF_INET ? 16 : SOCKADDR_SIZE));
          found.push(requireFew(decodeSocketAddress(bytes).address, found.length));
        }
      }
      entry = view.getPointer(0);
    }
  } finally {
    libc.freeifaddrs(list);
  }
  return found;
}

/**
 * Whoever may give a pod's devices addresses may give them any number, and each is looked at every
 * few seconds.
 */
const mostAddresses = 1_024;

/** @throws {Error} when `count` others have been found before this one. */
export function requireFew<T>(found: T, count: number): T {
  if (count < mostAddresses) return found;
  throw new Error(`its network namespace has more than ${mostAddresses} addresses`);
}

const O_RDONLY = 0;
const O_CLOEXEC = 0o2000000;
const CLONE_NEWNET = 0x4000_0000;
const NS_GET_USERNS = 0xb701n; // linux/nsfs.h: _IO(0xb7, 1)

/**
 * Where this thread belongs. Opened once: a thread that stands elsewhere can no longer find the way
 * back.
 */
const home = checked(
  libc.open(cString("/proc/thread-self/ns/net"), O_RDONLY | O_CLOEXEC),
  "open",
  "/proc/thread-self/ns/net",
);
