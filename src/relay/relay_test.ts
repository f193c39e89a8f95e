/** The commands of a worker, and a pod's way out. No root is needed. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { decodePeer, encodeEndpoint, encodePeer, encodeSocketKey } from "../kernel/maps.ts";
import { allowDescriptors } from "../native/descriptor_limit.ts";
import { Socket } from "../native/socket.ts";
import { parsePolicy } from "../policy.ts";
import { shopCredentials } from "../standalone/authority_for_tests.ts";
import { Application, bytes, endpoint } from "../standalone/applications_for_tests.ts";
import { addressOf, identityOf, RelayBench } from "../standalone/relay_for_tests.ts";
import type { Script, ScriptedServer } from "../standalone/scripted_relay_for_tests.ts";
import type { WorkerContext } from "./loop/worker_context.ts";
import type { Denied, PodDescription, WorkerEvent } from "./messages.ts";
import { Relay } from "./relay.ts";
import type { RelayPod } from "./stream/pod.ts";
import { TUNNEL_PORT } from "../constants.ts";

interface Scene {
  readonly bench: RelayBench;
  readonly relay: Relay;
  readonly context: WorkerContext;
  readonly description: PodDescription;
  /** Whose streams they are. */
  readonly client: RelayPod;
  events<T extends WorkerEvent["type"]>(type: T): (WorkerEvent & { type: T })[];
  enrol(): Promise<void>;
  /** One more pod, with an application. */
  enrolAnother(relay: number): Promise<PodDescription>;
  /** A stream from a client to the pod's application. */
  stream(to?: PodDescription): Promise<Script>;
  /** A connection through the pod's outbound listener. */
  connect(server: ScriptedServer): Application;
  /** A tunnel of the pod's that waits for its next stream. */
  idle(server: ScriptedServer): Promise<void>;
}

function scene(name: string, play: (scene: Scene) => Promise<void>): void {
  Deno.test(name, async () => {
    using bench = new RelayBench();
    const context = bench.worker({ maxConnections: 4_000 }, 2);
    const relay = new Relay(context, () => ({ run: (action) => action() }));
    const description = describe(bench, 7);
    const address = description.addresses[0] ?? "";
    const events = <T extends WorkerEvent["type"]>(type: T) =>
      bench.events.filter((event): event is WorkerEvent & { type: T } => event.type === type);
    const enrolPod = async (pod: PodDescription) => {
      const credentials = await shopCredentials(pod.addresses, "web");
      const before = events("enrolled").length + events("failed").length;
      relay.tryToObey({ type: "enrol", pod, credentials });
      await bench.until(() => events("enrolled").length + events("failed").length > before);
    };
    const enrol = () => enrolPod(description);
    const enrolAnother = async (name: number) => {
      const pod = describe(bench, name);
      await enrolPod(pod);
      return pod;
    };
    const client = await bench.pod(bench.worker(), "client");
    bench.setPeer(addressOf(client), "client");
    const stream = async ({ addresses: [to = ""] } = description) => {
      const script = bench.dial(client, to);
      await bench.until(() => script.last === "secured");
      script.tunnel.sendOpen({
        port: 8080,
        client: endpoint(addressOf(client), 1),
        dialled: endpoint(to, 8080),
      });
      await bench.until(() => script.last === "accept");
      return script;
    };
    const connect = (server: ScriptedServer) => {
      const application = new Application(Socket.forAddress(LOOPBACK));
      application.socket.bind({ address: LOOPBACK, port: 0 });
      const source = application.socket.localEndpoint();
      const flow = encodeEndpoint(server.at(8080));
      bench.maps.flows.set(encodeSocketKey(description.cookie, source), flow);
      application.socket.connect(endpoint(address, 18_000));
      return application;
    };
    const idle = async (server: ScriptedServer) => {
      const application = connect(server);
      await bench.until(() => server.tunnel.last.startsWith("open"));
      server.tunnel.send("ACCEPT");
      server.tunnel.send("END");
      application.finish();
      await bench.until(() => server.tunnel.last === "end");
      await bench.until(() => (application.read(), application.end === "fin"));
      application.socket[Symbol.dispose]();
    };
    const made = { bench, relay, context, description, client };
    await play({ ...made, events, enrol, enrolAnother, stream, connect, idle });
    for (const { relay: name } of events("enrolled")) {
      relay.tryToObey({ type: "withdraw", relay: name, drainMilliseconds: 0 });
    }
    context.loop.turn(0);
  });
}

scene(
  "enrol: the pod's listeners serve, both of them; report and connections say so",
  async (s) => {
    const { bench, relay, description, events } = s;
    await s.enrol();
    deepStrictEqual(events("enrolled"), [{ type: "enrolled", relay: 7 }]);
    await s.stream();
    const outbound = Socket.forAddress(bytes("127.0.0.1"));
    outbound.connect(endpoint(description.addresses[0] ?? "", 18_000));
    await bench.until(() => bench.refused.includes("no_flow"));
    outbound[Symbol.dispose]();
    relay.tryToObey({ type: "report", id: 1 });
    const [report] = events("report")[0]?.pods ?? [];
    deepStrictEqual([report?.uid, report?.streamsOpen, report?.refused], ["uid", 1, {
      no_flow: 1,
    }]);
    relay.tryToObey({ type: "connections", id: 2 });
    const [listed] = events("connections");
    deepStrictEqual([listed?.count, listed?.connections[0]?.state], [1, "streaming"]);
  },
);

scene("enrol: credentials that cannot be used are told, and the listeners closed", async (s) => {
  const { relay, description, events } = s;
  const credentials = { chain: [], privateKey: new Uint8Array(), roots: [], notAfter: 0 };
  relay.tryToObey({ type: "enrol", pod: description, credentials });
  match(events("failed")[0]?.reason ?? "", /the trust bundle is empty/);
  const again = Socket.forAddress(bytes("127.0.0.1")).reuseAddress();
  again.bind(endpoint(description.addresses[0] ?? "", TUNNEL_PORT));
  again[Symbol.dispose]();
  await Promise.resolve();
});

scene("withdraw: at once without a stream, else when the last one has ended", async (s) => {
  const { bench, relay, events } = s;
  await s.enrol();
  const script = await s.stream();
  relay.tryToObey({ type: "withdraw", relay: 7, drainMilliseconds: 30_000 });
  for (let count = 0; count < 10; count++) bench.later(50);
  deepStrictEqual([events("withdrawn"), script.isLost], [[], false]);
  script.tunnel.close();
  await bench.until(() => {
    bench.later(50);
    return events("withdrawn").length === 1;
  });
  relay.tryToObey({ type: "report", id: 1 });
  deepStrictEqual([events("report")[0]?.pods, events("report")[0]?.past.streams], [[], 1]);
});

scene(
  "withdraw: when the time is over, what is left is reset; twice: both are answered",
  async (s) => {
    const { bench, relay, events } = s;
    await s.enrol();
    const script = await s.stream();
    relay.tryToObey({ type: "withdraw", relay: 7, drainMilliseconds: 30_000 });
    bench.later(29_950);
    ok(!script.isLost);
    relay.tryToObey({ type: "withdraw", relay: 7, drainMilliseconds: 0 });
    await bench.until(() => script.isLost);
    strictEqual(events("withdrawn").length, 2);
    relay.tryToObey({ type: "withdraw", relay: 7, drainMilliseconds: 0 });
    strictEqual(events("withdrawn").length, 3, "one that is not there is gone");
  },
);

scene("withdraw: a second time gives no more time", async (s) => {
  const { bench, relay, events } = s;
  await s.enrol();
  const script = await s.stream();
  relay.tryToObey({ type: "withdraw", relay: 7, drainMilliseconds: 1_000 });
  relay.tryToObey({ type: "withdraw", relay: 7, drainMilliseconds: 30_000 });
  for (let count = 0; count < 20; count++) bench.later(50);
  await bench.until(() => script.isLost);
  strictEqual(events("withdrawn").length, 2);
});

scene("withdraw: a tunnel without a stream is not waited for", async (s) => {
  const { bench, relay, client, description, events } = s;
  await s.enrol();
  const script = bench.dial(client, description.addresses[0] ?? "");
  await bench.until(() => script.last === "secured");
  relay.tryToObey({ type: "withdraw", relay: 7, drainMilliseconds: 30_000 });
  strictEqual(events("withdrawn").length, 1);
  await bench.until(() => script.isLost);
});

scene("withdraw: no new connection is taken meanwhile", async (s) => {
  const { bench, relay, description } = s;
  await s.enrol();
  await s.stream();
  relay.tryToObey({ type: "withdraw", relay: 7, drainMilliseconds: 30_000 });
  const client = await bench.pod(bench.worker(), "client");
  const late = bench.dial(client, description.addresses[0] ?? "");
  await bench.until(() => late.isLost);
  match(late.last, /ECONNREFUSED/);
});

scene("adjust and renew: in force for what is open", async (s) => {
  const { bench, relay, description } = s;
  await s.enrol();
  const script = await s.stream();
  const settings = { policy: parsePolicy("shop/nobody"), strictEgress: false };
  relay.tryToObey({ type: "adjust", relay: 7, settings });
  await bench.until(() => script.isLost);
  relay.tryToObey({
    type: "adjust",
    relay: 7,
    settings: { policy: undefined, strictEgress: false },
  });
  const credentials = await shopCredentials(description.addresses, "other");
  relay.tryToObey({ type: "renew", relay: 7, credentials });
  const next = await s.stream();
  using certificate = next.tunnel.session.peerCertificate();
  strictEqual(new TextDecoder().decode(certificate.leafFacts().uriSans[0]), identityOf("other"));
});

scene("take: a connection of another worker's; of a pod that is gone it is reset", async (s) => {
  const { bench, relay, events } = s;
  await s.enrol();
  for (const [count, name] of [7, 8].entries()) {
    const listener = Socket.forAddress(bytes("127.0.0.1"));
    listener.bind(endpoint("127.0.0.1", 0));
    listener.listen();
    const socket = Socket.forAddress(bytes("127.0.0.1"));
    socket.connect(listener.localEndpoint());
    const accepted = listener.accept();
    if (typeof accepted === "number") throw new Error("not accepted");
    const { descriptor } = accepted.socket;
    relay.tryToObey({
      type: "take",
      connection: { relay: name, listener: 1, descriptor, peer: accepted.peer },
    });
    relay.tryToObey({ type: "connections", id: count });
    strictEqual(events("connections")[count]?.count, 1, "the first is kept, the second not");
    const application = new Application(socket);
    if (name === 8) await bench.until(() => (application.read(), application.end === "reset"));
    for (const one of [listener, socket]) one[Symbol.dispose]();
  }
});

scene("prove: answered for a pod that is served, and for one that is not", async (s) => {
  const { bench, relay, events, description: { addresses: [address = ""] } } = s;
  await s.enrol();
  relay.tryToObey({ type: "prove", id: 1, relay: 7, address });
  relay.tryToObey({ type: "prove", id: 2, relay: 8, address });
  await bench.until(() => events("proved").length === 2);
  const byId = new Map(events("proved").map(({ id, result }) => [id, result]));
  deepStrictEqual([byId.get(1)?.ok, byId.get(2)], [true, {
    ok: false,
    reason: "the pod is not enrolled here",
  }]);
});

scene("a command that throws costs its own effect only", async (s) => {
  const { bench, relay } = s;
  await s.enrol();
  const credentials = { chain: [], privateKey: new Uint8Array(), roots: [], notAfter: 0 };
  relay.tryToObey({ type: "renew", relay: 7, credentials });
  match(bench.log, /the command renew failed/);
  await s.stream();
});

scene(
  "peers: who has left is cut when two reviews have found it, however often others change",
  async (s) => {
    const { bench, relay, client } = s;
    await s.enrol();
    const streams = [await s.stream(), await s.stream(await s.enrolAnother(8))];
    await withPeer(s, async (server) => {
      await s.idle(server);
      relay.tryToObey({ type: "peers" });
      bench.turn();
      ok(!server.tunnel.isLost, "nobody has left yet");
      bench.maps.peers.delete(bytes(server.address));
      bench.maps.peers.delete(bytes(addressOf(client)));
      for (let count = 0; count < 4; count++) {
        relay.tryToObey({ type: "peers" });
        await bench.until(() => server.tunnel.isLost, () => "no idle tunnel is kept to it");
        if (count < 3) bench.later(5_000);
      }
      bench.later(5_000);
      deepStrictEqual(streams.map(({ isLost }) => isLost), [false, false], "seen once");
      bench.later(19_999);
      deepStrictEqual(streams.map(({ isLost }) => isLost), [false, false]);
      bench.later(1);
      await bench.until(() => streams.every(({ isLost }) => isLost));
    });
    deepStrictEqual(bench.refused, ["peer_revoked", "peer_revoked"]);
  },
);

scene("peers: who waits for one that was not ready is connected at once when it is", async (s) => {
  const { bench, relay } = s;
  await s.enrol();
  await withPeer(s, async (server) => {
    bench.setPeer(server.address, "web", { ready: false });
    const application = s.connect(server);
    await bench.until(() => s.context.postponed.size === 1);
    const key = bytes(server.address);
    const peer = decodePeer(bench.maps.peers.get(key) ?? new Uint8Array());
    bench.maps.peers.set(key, encodePeer({ ...peer, ready: true }));
    bench.turn();
    strictEqual(server.tunnels.length, 0, "it has not been told");
    relay.tryToObey({ type: "peers" });
    await bench.until(() => server.tunnel.last === "open 8080");
    application.reset();
  });
});

scene("leaving: what is on its way to a peer that goes still gets there", async (s) => {
  const { bench, relay } = s;
  await s.enrol();
  await withPeer(s, async (server) => {
    const { address } = server;
    relay.tryToObey({ type: "leaving", peers: [{ address, identity: identityOf("web") }] });
    bench.maps.peers.delete(bytes(address));
    relay.tryToObey({ type: "peers" });
    const application = s.connect(server);
    await bench.until(() => server.tunnel.last === "open 8080");
    application.reset();
  });
});

scene("deny: streams of whom it names end at once, and no tunnel waits any more", async (s) => {
  const { bench, relay } = s;
  await s.enrol();
  const script = await s.stream();
  await withPeer(s, async (server) => {
    await s.idle(server);
    relay.tryToObey({ type: "deny", denied: deny({ identities: ["somebody else"] }) });
    await bench.until(() => server.tunnel.isLost);
    ok(!script.isLost);
    relay.tryToObey({ type: "deny", denied: deny({ identities: [identityOf("client")] }) });
    await bench.until(() => script.isLost);
  });
});

scene("a worker that is busy passes a new connection on, with the listener's number", async (s) => {
  const { bench, relay, context, description, events } = s;
  await s.enrol();
  context.load.add(64 << 20);
  await withPeer(s, async (server) => {
    const application = s.connect(server);
    await bench.until(() => events("passed").length === 1);
    const [{ to, connection } = {}] = events("passed");
    deepStrictEqual([to, connection?.relay, connection?.listener], [1, description.relay, 0]);
    strictEqual(server.tunnels.length, 0);
    if (connection !== undefined) relay.tryToObey({ type: "take", connection });
    await bench.until(() => server.tunnel.last === "open 8080");
    application.reset();
  });
});

scene("connections: the first thousand are listed, all are counted", async (s) => {
  const { bench, relay, context, events } = s;
  allowDescriptors(8_192);
  await s.enrol();
  await withPeer(s, async (server) => {
    const applications = Array.from({ length: 1_002 }, () => s.connect(server));
    await bench.until(() => context.shares.open === 1_002);
    await s.stream(await s.enrolAnother(8));
    relay.tryToObey({ type: "connections", id: 1 });
    const [answer] = events("connections");
    deepStrictEqual([answer?.count, answer?.connections.length], [1_003, 1_000]);
    for (const { socket } of applications) socket[Symbol.dispose]();
  });
});

/** A peer of the pod's that does what the test says. */
async function withPeer({ bench }: Scene, use: (server: ScriptedServer) => Promise<void>) {
  await use(await bench.script(bench.worker()));
}

function deny({ identities = [] }: { identities?: string[] }): Denied {
  return { serials: new Set(), identities: new Set(identities), pods: new Set() };
}

/** A pod with its listeners and its application, to be enrolled. */
function describe(bench: RelayBench, relay: number): PodDescription {
  const address = bench.newAddress();
  const listening = (port: number) => {
    const socket = Socket.forAddress(bytes(address)).reuseAddress();
    socket.bind(endpoint(address, port));
    socket.listen();
    return socket.descriptor;
  };
  bench.application(endpoint(address, 8080));
  return {
    relay,
    uid: relay === 7 ? "uid" : `uid-${relay}`,
    name: "shop/web",
    identity: identityOf("web"),
    addresses: [address],
    settings: { policy: undefined, strictEgress: false },
    cookie: BigInt(92 + relay),
    namespace: -1,
    outbound: [listening(18_000)],
    inbound: [listening(TUNNEL_PORT)],
    outboundPort: 18_000,
  };
}

const LOOPBACK = bytes("127.0.0.1");
