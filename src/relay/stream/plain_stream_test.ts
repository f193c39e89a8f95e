/** A plain stream's states. No root is needed. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { ECONNREFUSED } from "../../native/errno.ts";
import { libc } from "../../native/libc.ts";
import { Socket } from "../../native/socket.ts";
import {
  Application,
  bytes,
  endpoint,
  type ListeningApplication,
} from "../../standalone/applications_for_tests.ts";
import { RelayBench } from "../../standalone/relay_for_tests.ts";
import { ALL_EVENTS } from "../tunnel/tunnel.ts";
import { PlainStream } from "./plain_stream.ts";

interface Scene {
  readonly bench: RelayBench;
  readonly told: string[];
  readonly stream: PlainStream;
  readonly server: ListeningApplication;
  readonly app: Application;
  /** The stream's socket to the server. */
  readonly far: Socket;
  /** Until both sides are joined. */
  joined(): Promise<Application>;
}

function scene(name: string, play: (scene: Scene) => Promise<void>, listens = true): void {
  Deno.test(name, async () => {
    using bench = new RelayBench();
    const worker = bench.worker();
    const address = bench.newAddress();
    const server = bench.application(endpoint(address, listens ? 80 + 8_000 : 1_111));
    const listener = Socket.forAddress(bytes("127.0.0.1"));
    listener.bind(endpoint("127.0.0.1", 0));
    listener.listen();
    const app = new Application(Socket.forAddress(bytes("127.0.0.1")));
    app.socket.connect(listener.localEndpoint());
    const accepted = listener.accept();
    if (typeof accepted === "number") throw new Error("not accepted");
    worker.loop.register(accepted.socket.descriptor, ALL_EVENTS, {
      ready: () => {},
      failed: () => {},
    });
    const far = Socket.forAddress(bytes(address));
    far.connect(endpoint(address, 8_080));
    const told: string[] = [];
    const stream: PlainStream = new PlainStream(worker, far, {
      connected: () => {
        told.push("connected");
        stream.join(accepted.socket);
      },
      unreachable: (errno) => told.push(`unreachable ${errno}`),
      closed: (error) => told.push(`closed ${error}`),
    });
    const joined = async () => {
      await bench.until(() => told.includes("connected") && server.accept() !== undefined);
      return server.accept() ?? app;
    };
    const all = () => {
      bench.turn(1);
      app.read();
      server.accept();
    };
    const until = bench.until.bind(bench);
    bench.until = (condition, what) => until(() => (all(), condition()), what);
    await play({ bench, told, stream, server, app, far, joined });
    for (const socket of [listener, app.socket, accepted.socket]) socket[Symbol.dispose]();
  });
}

scene("bytes both ways, each side ends by itself, both ends close it cleanly", async (s) => {
  const server = await s.joined();
  s.app.send("there");
  server.send("and back");
  await s.bench.until(() => server.received === "there" && s.app.received === "and back");
  server.finish();
  await s.bench.until(() => s.app.end === "fin");
  s.app.send("more");
  s.app.finish();
  await s.bench.until(() => server.end === "fin");
  strictEqual(server.received, "theremore");
  deepStrictEqual([s.told, s.stream.bytesSent, s.stream.bytesReceived], [
    ["connected", "closed undefined"],
    9,
    8,
  ]);
});

scene("what the application has sent before there was a connection is not lost", async (s) => {
  s.app.send("early");
  s.app.finish();
  const server = await s.joined();
  await s.bench.until(() => server.received === "early" && server.end === "fin");
});

scene(
  "nobody listens: unreachable, once; the application's socket stays its owner's",
  async (s) => {
    await s.bench.until(() => s.told.length > 0);
    s.stream.reset("late");
    deepStrictEqual([s.told, s.app.end, s.far.closed], [[`unreachable ${ECONNREFUSED}`], "", true]);
  },
  false,
);

scene("abandoned while it connects: nothing is told, also not later", async (s) => {
  s.stream.abandon();
  s.bench.turn(10);
  deepStrictEqual([s.told, s.app.end], [[], ""]);
  await Promise.resolve();
});

for (const side of ["application", "server"] as const) {
  scene(`a reset by the ${side} is a reset on the other side`, async (s) => {
    const server = await s.joined();
    (side === "server" ? server : s.app).reset();
    await s.bench.until(() => s.told.length === 2);
    const other = side === "server" ? s.app : server;
    await s.bench.until(() => other.end === "reset");
    deepStrictEqual(s.told, ["connected", "closed ECONNRESET"]);
  });
}

scene("reset: both sides see one, the owner is told why, once", async (s) => {
  const server = await s.joined();
  s.stream.reset("because");
  s.stream.reset("again");
  await s.bench.until(() => s.app.end === "reset" && server.end === "reset");
  deepStrictEqual(s.told, ["connected", "closed because"]);
});

scene("a slow reader gets everything, and FIN after it", async (s) => {
  const server = await s.joined();
  let sent = 0;
  const chunk = new Uint8Array(1 << 19).fill(120);
  for (let idle = 0; idle < 3;) {
    const count = s.app.send(chunk); // the server does not read
    sent += Math.max(count, 0);
    idle = count > 0 ? 0 : idle + 1;
    s.bench.turn(1);
  }
  ok(sent > chunk.length);
  s.app.finish();
  await s.bench.until(() => server.end === "fin");
  strictEqual(server.received.length, sent);
  server.finish();
  await s.bench.until(() => s.told.at(-1) === "closed undefined");
});

scene("what is behind an urgent byte is copied, both ways", async (s) => {
  const server = await s.joined();
  for (const [from, to] of [[s.app, server], [server, s.app]] as const) {
    from.send("before");
    strictEqual(libc.send(from.socket.descriptor, new Uint8Array([33]), 1n, MSG_OOB), 1);
    from.send(" and behind");
    await s.bench.until(() => to.received === "before and behind");
  }
});

const MSG_OOB = 1; // linux/socket.h
