/** The pool and its dials, against peers that do what the test says. No root is needed. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { TUNNEL_PORT } from "../../constants.ts";
import { shopCredentials } from "../../standalone/authority_for_tests.ts";
import { bytes, type ListeningApplication } from "../../standalone/applications_for_tests.ts";
import { addressOf, RelayBench, socketsOf } from "../../standalone/relay_for_tests.ts";
import type { ScriptedServer } from "../../standalone/scripted_relay_for_tests.ts";
import type { KnownPeer } from "../loop/known_peers.ts";
import type { RelayPod } from "../stream/pod.ts";
import { Dial, type Failure } from "./dial.ts";
import type { TunnelUser } from "./pool.ts";
import type { Tunnel } from "./tunnel.ts";

class User implements TunnelUser {
  tunnel: Tunnel | undefined;
  reused: boolean | undefined;
  failure: Failure | undefined;

  tunnelReady(tunnel: Tunnel, reused: boolean): void {
    [this.tunnel, this.reused] = [tunnel, reused];
  }

  tunnelFailed(failure: Failure): void {
    this.failure = failure;
  }
}

interface Scene {
  readonly bench: RelayBench;
  readonly pod: RelayPod;
  readonly server: ScriptedServer;
  peer(): KnownPeer;
  request(): User;
  /** A user that has its tunnel. */
  served(): Promise<{ user: User; tunnel: Tunnel }>;
}

function scene(name: string, play: (scene: Scene) => Promise<void>): void {
  Deno.test(name, async () => {
    using bench = new RelayBench();
    const pod = await bench.pod(bench.worker({}, 2), "client");
    const server = await bench.script(bench.worker());
    const peer = () => {
      const found = pod.worker.peers.find(bytes(server.address));
      if (found === undefined) throw new Error("no peer");
      return found;
    };
    const request = () => {
      const user = new User();
      pod.pool.request(peer(), user);
      return user;
    };
    const served = async () => {
      const user = request();
      await bench.until(() => user.tunnel !== undefined);
      if (user.tunnel === undefined) throw new Error("no tunnel");
      return { user, tunnel: user.tunnel };
    };
    await play({ bench, pod, server, peer, request, served });
    pod.pool.close();
  });
}

scene("a parked tunnel is the next user's, at once; one in use is nobody else's", async (s) => {
  const { user, tunnel } = await s.served();
  strictEqual(user.reused, false);
  s.pod.pool.park(s.peer(), tunnel);
  const next = s.request();
  deepStrictEqual([next.tunnel === tunnel, next.reused], [true, true]);
  const other = await s.served();
  ok(other.tunnel !== tunnel);
  deepStrictEqual([s.server.tunnels.length, s.pod.counters.tunnelsOpen], [2, 2]);
});

scene("a burst: one handshake at first, then twice as many each time", async (s) => {
  const users = Array.from({ length: 7 }, () => s.request());
  s.bench.turn(1);
  strictEqual(s.pod.counters.tunnelsOpen, 1);
  const ready = () => users.filter(({ tunnel }) => tunnel !== undefined).length;
  await s.bench.until(() => ready() === 1);
  strictEqual(s.pod.counters.tunnelsOpen, 3, "one is there, two are being made");
  await s.bench.until(() => ready() === 7);
  strictEqual(s.pod.counters.tunnelsOpen, 7);
});

scene("a tunnel that comes back serves who waits for one that is being made", async (s) => {
  const { tunnel } = await s.served();
  const user = s.request();
  s.pod.pool.park(s.peer(), tunnel);
  deepStrictEqual([user.tunnel === tunnel, user.reused], [true, true]);
});

scene("who withdraws is not served; the tunnel waits for the next", async (s) => {
  const user = s.request();
  s.pod.pool.withdraw(s.peer(), user);
  await s.bench.until(() => s.server.tunnels.length === 1 && s.server.tunnel.last === "secured");
  s.bench.turn();
  strictEqual(user.tunnel, undefined);
  strictEqual(s.request().reused, true);
});

scene(
  "an idle tunnel ends after --tunnel-idle, when the peer closes it, and at any frame",
  async (s) => {
    const { bench, pod } = s;
    pod.pool.park(s.peer(), (await s.served()).tunnel);
    bench.later(9_999);
    strictEqual(pod.counters.tunnelsOpen, 1);
    bench.later(1);
    strictEqual(pod.counters.tunnelsOpen, 0);
    pod.pool.park(s.peer(), (await s.served()).tunnel);
    s.server.tunnel.tunnel.close();
    await bench.until(() => pod.counters.tunnelsOpen === 0);
    for (const frame of ["ACCEPT", "END", "RESET"] as const) {
      pod.pool.park(s.peer(), (await s.served()).tunnel);
      s.server.tunnel.send(frame);
      await bench.until(() => pod.counters.tunnelsOpen === 0, () => frame);
    }
    pod.pool.park(s.peer(), (await s.served()).tunnel);
    s.server.tunnel.sendData("x");
    await bench.until(() => pod.counters.tunnelsOpen === 0);
  },
);

scene("a tunnel that has left the pool is not ended by the time it had there", async (s) => {
  const { bench, pod } = s;
  pod.pool.park(s.peer(), (await s.served()).tunnel);
  const { tunnel } = s.request();
  bench.later(10_000);
  deepStrictEqual([tunnel?.closed, pod.counters.tunnelsOpen], [false, 1]);
  if (tunnel !== undefined) pod.pool.park(s.peer(), tunnel);
  s.server.tunnel.tunnel.close();
  await bench.until(() => pod.counters.tunnelsOpen === 0);
  bench.later(10_000);
  strictEqual(pod.counters.tunnelsOpen, 0, "nor is one that is lost ended twice");
});

scene("another pod at the address gets a tunnel of its own", async (s) => {
  const { tunnel } = await s.served();
  s.pod.pool.park(s.peer(), tunnel);
  s.bench.setPeer(s.server.address, "web", { generation: 2 });
  const user = s.request();
  ok(user.tunnel === undefined);
  await s.bench.until(() => user.tunnel !== undefined);
  deepStrictEqual([user.reused, user.tunnel === tunnel], [false, false]);
});

scene("--tunnel-idle 0: no tunnel is kept", async ({ bench }) => {
  const pod = await bench.pod(bench.worker({ tunnelIdleMilliseconds: 0 }), "client");
  const server = await bench.script(bench.worker());
  const peer = pod.worker.peers.find(bytes(server.address));
  if (peer === undefined) throw new Error("no peer");
  const user = new User();
  pod.pool.request(peer, user);
  await bench.until(() => user.tunnel !== undefined);
  if (user.tunnel !== undefined) pod.pool.park(peer, user.tunnel);
  deepStrictEqual([user.tunnel?.closed, pod.counters.tunnelsOpen], [true, 0]);
});

for (
  const [why, spoil] of [
    ["the pod has other credentials", async ({ pod }: Scene) => {
      pod.renew(await shopCredentials([addressOf(pod)], "client"));
    }],
    ["it is ten minutes old", ({ bench }: Scene) => void (bench.now += 600_001)],
    ["the wall clock has passed a certificate's end", ({ bench }: Scene) => {
      bench.wallOffset = 3_601_000;
    }],
    ["this worker is busier than another", ({ pod }: Scene) => pod.worker.load.add(64 << 20)],
    ["the peer is another pod", ({ bench, server }: Scene) => {
      bench.setPeer(server.address, "web", { generation: 2 });
    }],
    ["it is closed", async ({ server, bench, pod }: Scene) => {
      server.tunnel.tunnel.close();
      await bench.until(() => pod.pool !== undefined);
      bench.turn();
    }],
  ] as const
) {
  scene(`a tunnel is not taken back when ${why}`, async (s) => {
    const peer = s.peer();
    const { tunnel } = await s.served();
    tunnel.owner = s.server.tunnel; // nobody's
    await spoil(s);
    s.pod.pool.park(peer, tunnel);
    deepStrictEqual([tunnel.closed, s.pod.counters.tunnelsOpen], [true, 0]);
  });
}

scene("an idle tunnel is not given once a certificate has expired by the wall clock", async (s) => {
  const { tunnel } = await s.served();
  s.pod.pool.park(s.peer(), tunnel);
  s.bench.wallOffset = 3_601_000;
  const user = s.request();
  deepStrictEqual([user.tunnel, user.failure?.code], [undefined, "certificate_expired"]);
  deepStrictEqual([tunnel.closed, s.pod.counters.tunnelsOpen], [true, 0]);
});

scene("64 idle tunnels to one pod, no more", async (s) => {
  const all = [];
  for (let count = 0; count < 65; count++) all.push((await s.served()).tunnel);
  for (const tunnel of all) s.pod.pool.park(s.peer(), tunnel);
  strictEqual(s.pod.counters.tunnelsOpen, 64);
});

scene("64 handshakes with one pod at once, no more, however many wait", async (s) => {
  const users = Array.from({ length: 150 }, () => s.request());
  const ready = () => users.filter(({ tunnel }) => tunnel !== undefined).length;
  await s.bench.until(() => ready() >= 7, () => "1, 2, 4, 8, 16, 32, 64, and then it would be 128");
  ok(users.length - ready() > 64);
  strictEqual(s.pod.counters.tunnelsOpen - ready(), 64);
  for (const user of users) {
    s.pod.pool.withdraw(s.peer(), user);
    user.tunnel?.close();
  }
});

scene("closeIdleTo, closeIdle and retain close what waits, and nothing else", async (s) => {
  const { pod } = s;
  const other = await s.bench.script(s.bench.worker());
  const peer = pod.worker.peers.find(bytes(other.address));
  if (peer === undefined) throw new Error("no peer");
  for (const close of ["to", "all", "retain"]) {
    const [idle, busy] = [(await s.served()).tunnel, (await s.served()).tunnel];
    const user = new User();
    pod.pool.request(peer, user);
    await s.bench.until(() => user.tunnel !== undefined);
    if (user.tunnel !== undefined) pod.pool.park(peer, user.tunnel);
    pod.pool.park(s.peer(), idle);
    if (close === "to") pod.pool.closeIdleTo(s.peer());
    else if (close === "all") pod.pool.closeIdle();
    else pod.pool.retain((one) => one.name !== s.server.address);
    deepStrictEqual(
      [idle.closed, busy.closed, user.tunnel?.closed],
      [true, false, close === "all"],
      close,
    );
    pod.pool.closeIdle();
    busy.close();
    pod.counters.tunnelsOpen--;
  }
});

scene("dial: who cannot even be dialled is told so, and leaves no socket behind", (s) => {
  const made = socketsOf(s.pod);
  s.bench.setPeer("255.255.255.255"); // connect() fails at once
  const peer = s.pod.worker.peers.find(bytes("255.255.255.255"));
  if (peer === undefined) throw new Error("no peer");
  const user = new User();
  s.pod.pool.request(peer, user);
  deepStrictEqual([user.failure?.code, user.failure?.notReady], ["dial", false]);
  match(user.failure?.message ?? "", /cannot dial 255.255.255.255:18443: connect .*ENETUNREACH/);
  deepStrictEqual([made.map(({ closed }) => closed), s.pod.counters.tunnelsOpen], [[true], 0]);
  return Promise.resolve();
});

scene("dial: nobody listens, which may be otherwise in a moment", async (s) => {
  s.server.listener?.[Symbol.dispose]();
  const users = [s.request(), s.request()];
  await s.bench.until(() => users.every(({ failure }) => failure !== undefined));
  deepStrictEqual(users.map(({ failure }) => failure?.notReady), [true, true]);
  match(users[0]?.failure?.message ?? "", /tunnel to 127.* cannot connect: ECONNREFUSED/);
  strictEqual(s.pod.counters.tunnelsOpen, 0);
});

scene(
  "dial: a connection that is reset before an answer may be otherwise in a moment",
  async (s) => {
    s.server.listener?.[Symbol.dispose]();
    const application = s.bench.application({
      address: bytes(s.server.address),
      port: TUNNEL_PORT,
    });
    const user = s.request();
    await s.bench.until(() => application.accept() !== undefined);
    application.accept()?.reset();
    await s.bench.until(() => user.failure !== undefined);
    deepStrictEqual([user.failure?.code, user.failure?.notReady], ["tunnel_lost", true]);
  },
);

scene("dial: who ends the handshake cleanly has refused", async (s) => {
  s.server.listener?.[Symbol.dispose]();
  const application = s.bench.application({ address: bytes(s.server.address), port: TUNNEL_PORT });
  const user = s.request();
  await s.bench.until(() => (application.accept()?.received.length ?? 0) > 0);
  application.accept()?.finish();
  await s.bench.until(() => user.failure !== undefined);
  deepStrictEqual([user.failure?.code, user.failure?.notReady], ["tunnel_lost", false]);
});

scene("dial: the handshake's deadline", (s) => {
  s.server.listener?.[Symbol.dispose]();
  s.bench.application({ address: bytes(s.server.address), port: TUNNEL_PORT });
  const user = s.request();
  s.bench.later(9_999);
  strictEqual(s.pod.counters.tunnelsOpen, 1);
  s.bench.later(1);
  deepStrictEqual([user.failure?.code, s.pod.counters.tunnelsOpen], ["deadline", 0]);
  return Promise.resolve();
});

scene(
  "dial: another identity than the registry's, another address, another CA: no tunnel",
  async (s) => {
    s.bench.setPeer(s.server.address, "other");
    const wrongIdentity = s.request();
    await s.bench.until(() => wrongIdentity.failure !== undefined);
    const far = s.bench.worker();
    const elsewhere = await s.bench.script(far, "web", undefined, ["127.1.1.1"]);
    const peer = s.pod.worker.peers.find(bytes(elsewhere.address));
    if (peer === undefined) throw new Error("no peer");
    const wrongAddress = new User();
    s.pod.pool.request(peer, wrongAddress);
    await s.bench.until(() => wrongAddress.failure !== undefined);
    deepStrictEqual(
      [wrongIdentity.failure?.code, wrongAddress.failure?.code],
      ["identity_mismatch", "address_mismatch"],
    );
    deepStrictEqual([s.pod.counters.tunnelsOpen, wrongIdentity.failure?.notReady], [0, false]);
    strictEqual(s.pod.counters.handshakes, 0, "none that has led to anybody");
    deepStrictEqual(Object.keys(s.bench.shown), [s.server.address], "it has a certificate for it");
  },
);

scene("one of several handshakes that fails is made up for by the others", async (s) => {
  const users = Array.from({ length: 3 }, () => s.request());
  await s.bench.until(() => users.some(({ tunnel }) => tunnel !== undefined));
  await s.bench.until(() => s.server.tunnels.length === 3, () => "two at once");
  s.server.tunnel.tunnel.close();
  await s.bench.until(() => users.every(({ tunnel, failure }) => tunnel ?? failure));
  deepStrictEqual(users.map(({ failure }) => failure), [undefined, undefined, undefined]);
});

scene("of two idle tunnels the one that was used last is taken", async (s) => {
  const { pod } = s;
  const [one, other] = [(await s.served()).tunnel, (await s.served()).tunnel];
  for (const tunnel of [one, other]) pod.pool.park(s.peer(), tunnel);
  deepStrictEqual([s.request().tunnel === other, s.request().tunnel === one], [true, true]);
});

scene(
  "a handshake that fails fails nobody while another is under way, and slows the next burst",
  async (s) => {
    const { bench, pod } = s;
    let application: ListeningApplication | undefined;
    const first = new (class extends User {
      override tunnelReady(tunnel: Tunnel, reused: boolean): void {
        super.tunnelReady(tunnel, reused);
        s.server.listener?.[Symbol.dispose]();
        const there = { address: bytes(s.server.address), port: TUNNEL_PORT };
        application = bench.application(there); // takes connections and says nothing
      }
    })();
    pod.pool.request(s.peer(), first);
    const users = [s.request(), s.request()];
    const connections = () => {
      application?.accept();
      return application?.connections ?? [];
    };
    const failures = () => users.map(({ failure }) => failure?.notReady);
    await bench.until(() => connections().length === 2);
    connections()[0]?.reset();
    await bench.until(() => pod.counters.tunnelsOpen === 1 + 1);
    deepStrictEqual(failures(), [undefined, undefined], "the other may succeed");
    connections()[1]?.reset();
    await bench.until(() => failures().join() === "true,true");
    const next = Array.from({ length: 3 }, () => s.request());
    strictEqual(pod.counters.tunnelsOpen, 1 + 1, "one handshake at first");
    for (const user of next) pod.pool.withdraw(s.peer(), user);
  },
);

scene(
  "a dial that is done is over: neither its deadline nor an abort touches the tunnel",
  async (s) => {
    const { bench, pod } = s;
    const told: string[] = [];
    let tunnel: Tunnel | undefined;
    const dial = new Dial(pod, s.peer(), {
      done: (made) => {
        tunnel = made;
        made.owner = s.server.tunnel; // nobody's
        told.push("done");
      },
      failed: ({ code }) => told.push(code),
    });
    dial.start();
    await bench.until(() => told.length > 0);
    bench.later(10_000);
    dial.abort();
    deepStrictEqual([told, tunnel?.closed, pod.counters.tunnelsOpen], [["done"], false, 1]);
    tunnel?.close();
  },
);

scene("dial: a handshake with the old credentials is good for one stream", async (s) => {
  const { bench, pod } = s;
  const user = s.request();
  pod.renew(await shopCredentials([addressOf(pod)], "client"));
  await bench.until(() => user.tunnel !== undefined);
  if (user.tunnel !== undefined) pod.pool.park(s.peer(), user.tunnel);
  deepStrictEqual([user.tunnel?.closed, pod.counters.tunnelsOpen], [true, 0]);
});

scene(
  "dial: whatever goes wrong in it, the listener is told, and nothing stays open",
  async (s) => {
    const { pod } = s;
    const told: Failure[] = [];
    const dial = new Dial(pod, s.peer(), {
      done: () => {},
      failed: (failure) => told.push(failure),
    });
    dial.start();
    dial.failed(new Error("a bug"));
    deepStrictEqual(told.map(({ code }) => code), ["internal"]);
    strictEqual(pod.counters.tunnelsOpen, 0);
    s.bench.later(10_000);
    strictEqual(told.length, 1);
    await Promise.resolve();
  },
);

scene("close: a handshake that is under way is ended", async (s) => {
  const user = s.request();
  strictEqual(s.pod.counters.tunnelsOpen, 1);
  s.pod.pool.close();
  strictEqual(s.pod.counters.tunnelsOpen, 0);
  s.bench.later(20_000);
  deepStrictEqual([user.tunnel, user.failure], [undefined, undefined]);
  await Promise.resolve();
});

scene("close: nobody is called any more, and nothing is open", async (s) => {
  s.pod.pool.park(s.peer(), (await s.served()).tunnel);
  const reused = s.request();
  ok(reused.tunnel);
  const user = s.request();
  s.pod.pool.close();
  s.bench.later(20_000);
  deepStrictEqual([user.tunnel, user.failure, s.pod.counters.tunnelsOpen], [
    undefined,
    undefined,
    1,
  ]);
});
