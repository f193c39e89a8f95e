/** Needs root: makes a network namespace of its own. */
import { deepStrictEqual, notStrictEqual, strictEqual, throws } from "node:assert/strict";
import { formatAddress, parseAddress } from "../addresses.ts";
import { errno } from "./errno.ts";
import { NetworkNamespace } from "./namespace.ts";
import { Socket } from "./socket.ts";
import { ROOT } from "../root_for_tests.ts";

const LOOPBACK = parseAddress("127.0.0.1");
const NAME = `kgw-test-${Deno.pid}`;

Deno.test("a socket belongs to the namespace in which it was made", ROOT, async () => {
  await withNamespace((namespace) => {
    using here = Socket.forAddress(LOOPBACK);
    using there = namespace.run(() => Socket.forAddress(LOOPBACK));
    using hereAgain = Socket.forAddress(LOOPBACK);
    notStrictEqual(there.namespaceCookie(), here.namespaceCookie());
    strictEqual(hereAgain.namespaceCookie(), here.namespaceCookie());

    // Nobody else can be on the port there: it is free although it is taken here.
    here.bind({ address: LOOPBACK, port: 0 });
    there.bind(here.localEndpoint());
    strictEqual(there.localEndpoint().port, here.localEndpoint().port);
  });
});

Deno.test("the thread comes back, with the action's result or its error", ROOT, async () => {
  await withNamespace((namespace) => {
    const home = standing();
    notStrictEqual(namespace.run(standing), home, "stood in the other namespace");
    strictEqual(namespace.run(() => 42), 42);
    strictEqual(standing(), home);

    const broken = new Error("in the other namespace");
    throws(() =>
      namespace.run(() => {
        throw broken;
      }), (error) => error === broken);
    strictEqual(standing(), home);

    using taken = namespace.run(() => Socket.forAddress(LOOPBACK));
    namespace.run(() => taken.bind({ address: LOOPBACK, port: 0 }));
    using second = namespace.run(() => Socket.forAddress(LOOPBACK));
    throws(() => namespace.run(() => second.bind(taken.localEndpoint())), /EADDRINUSE/);
    strictEqual(standing(), home);
  });
});

Deno.test(
  "the addresses are those of every interface there, both families, and none of here",
  ROOT,
  async () => {
    await withNamespace(async (namespace) => {
      deepStrictEqual(addressesOf(namespace), [], "a new namespace has none");
      await ip("link", "set", "lo", "up");
      await ip("link", "add", "one", "type", "veth", "peer", "two");
      // An interface without any address has an entry, too, in getifaddrs' list.
      await ip("address", "add", "10.98.7.6/24", "dev", "one");
      await ip("address", "add", "10.98.7.7/24", "dev", "one");
      await ip("address", "add", "fd98::76/64", "dev", "one", "nodad");
      deepStrictEqual(addressesOf(namespace), [
        "10.98.7.6",
        "10.98.7.7",
        "127.0.0.1",
        "::1",
        "fd98::76",
      ]);
      strictEqual(namespace.addresses().every(({ length }) => length === 16), true);

      // getifaddrs' list is a kilobyte and more here: 10,000 of them would show.
      for (let count = 0; count < 1000; count++) namespace.addresses();
      const before = Deno.memoryUsage().rss;
      for (let count = 0; count < 10_000; count++) namespace.addresses();
      const grown = Deno.memoryUsage().rss - before;
      strictEqual(grown < 8e6, true, `grew by ${grown} bytes`);
    });
  },
);

Deno.test("visits leave no descriptor open", ROOT, async () => {
  await withNamespace((namespace) => {
    const before = descriptors();
    for (let visit = 0; visit < 200; visit++) {
      namespace.addresses();
      using opened = NetworkNamespace.open(`/run/netns/${NAME}`);
      opened[Symbol.dispose](); // twice: the descriptor must not be closed under its next owner
    }
    strictEqual(descriptors(), before);
  });
});

Deno.test(
  "a namespace can be disposed of twice without closing another's descriptor",
  ROOT,
  async () => {
    await withNamespace(() => {
      const first = NetworkNamespace.open(`/run/netns/${NAME}`);
      first[Symbol.dispose]();
      using next = NetworkNamespace.open(`/run/netns/${NAME}`);
      strictEqual(next.descriptor, first.descriptor, "the number is used again");
      first[Symbol.dispose]();
      strictEqual(next.run(() => 1), 1);
    });
  },
);

Deno.test("what is no namespace is refused before anything is run", () => {
  throws(() => NetworkNamespace.open("/run/netns/no-such-namespace"), {
    name: "SystemError",
    message: "open failed with ENOENT: /run/netns/no-such-namespace",
  });
  using file = NetworkNamespace.open("/proc/self/status");
  let ran = false;
  throws(() => file.run(() => ran = true), { name: "SystemError", call: "setns" });
  strictEqual(ran, false);
  notStrictEqual(errno(), 0);
});

/** The namespace in which this thread stands. */
function standing(): string {
  return Deno.readLinkSync("/proc/thread-self/ns/net");
}

function addressesOf(namespace: NetworkNamespace): string[] {
  return namespace.addresses().map(formatAddress).filter((text) => !text.startsWith("fe80:"))
    .sort();
}

function descriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

async function withNamespace(test: (namespace: NetworkNamespace) => void | Promise<void>) {
  await command("ip", "netns", "add", NAME);
  try {
    using namespace = NetworkNamespace.open(`/run/netns/${NAME}`);
    await test(namespace);
  } finally {
    await command("ip", "netns", "delete", NAME);
  }
}

/** Runs `ip` inside the namespace. */
async function ip(...args: string[]): Promise<void> {
  await command("ip", "-netns", NAME, ...args);
}

async function command(name: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(name, { args }).output();
  strictEqual(success, true, new TextDecoder().decode(stderr));
}
