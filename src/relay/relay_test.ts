/** The commands of a worker, and a pod's way out. No root is needed. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { Socket } from "../native/socket.ts";
import { parsePolicy } from "../policy.ts";
import { shopCredentials } from "../standalone/authority_for_tests.ts";
import {
  addressOf,
  bytes,
  endpoint,
  identityOf,
  RelayBench,
  type Script,
} from "../standalone/relay_for_tests.ts";
import type { PodDescription, WorkerEvent } from "./messages.ts";
import { Relay } from "./relay.ts";
import { TUNNEL_PORT } from "../constants.ts";

interface Scene {
  readonly bench: RelayBench;
  readonly relay: Relay;
  readonly description: PodDescription;
  events<T extends WorkerEvent["type"]>(type: T): (WorkerEvent & { type: T })[];
  enrol(): Promise<void>;
  /** A stream from a client to the pod's application. */
  stream(): Promise<Script>;
}

function scene(name: string, play: (scene: Scene) => Promise<void>): void {
  Deno.test(name, async () => {
    using bench = new RelayBench();
    const context = bench.worker();
    const relay = new Relay(context, () => ({ run: (action) => action() }));
    const address = bench.newAddress();
    const listening = (port: number) => {
      const socket = Socket.forAddress(bytes(address)).reuseAddress();
      socket.bind(endpoint(address, port));
      socket.listen();
      return socket.descriptor;
    };
    const description: PodDescription = {
      relay: 7,
      uid: "uid",
      name: "shop/web",
      identity: identityOf("web"),
      addresses: [address],
      settings: { policy: undefined, strictEgress: false },
      cookie: 99n,
      namespace: -1,
      outbound: [listening(18_000)],
      inbound: [listening(TUNNEL_PORT)],
      outboundPort: 18_000,
    };
    bench.application(endpoint(address, 8080));
    const events = <T extends WorkerEvent["type"]>(type: T) =>
      bench.events.filter((event): event is WorkerEvent & { type: T } => event.type === type);
    const credentials = await shopCredentials([address], "web");
    const enrol = async () => {
      relay.tryToObey({ type: "enrol", pod: description, credentials });
      await bench.until(() => events("enrolled").length + events("failed").length > 0);
    };
    const client = await bench.pod(bench.worker(), "client");
    bench.setPeer(addressOf(client), "client");
    const stream = async () => {
      const script = bench.dial(client, address);
      await bench.until(() => script.last === "secured");
      script.tunnel.sendOpen({
        port: 8080,
        client: endpoint(addressOf(client), 1),
        dialled: endpoint(address, 8080),
      });
      await bench.until(() => script.last === "accept");
      return script;
    };
    await play({ bench, relay, description, events, enrol, stream });
    relay.tryToObey({ type: "withdraw", relay: 7, drainMilliseconds: 0 });
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
  const { relay, events } = s;
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
