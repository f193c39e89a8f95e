/** A tunnel's states between two relays that do what the test says. No root is needed. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { TUNNEL_PORT } from "../../constants.ts";
import { EPOLLOUT } from "../../native/epoll.ts";
import { libc } from "../../native/libc.ts";
import { Socket } from "../../native/socket.ts";
import { TlsEngine } from "../../native/tls_session.ts";
import {
  awaitDelivery,
  bytes,
  endpoint,
  slowReceivers,
} from "../../standalone/applications_for_tests.ts";
import { scene } from "../../standalone/tunnel_scene_for_tests.ts";

scene("every frame comes out as it went in, also when many are sent at once", async (s) => {
  const { client, far } = await s.pair();
  const open = { port: 80, client: endpoint("fd00::1", 2), dialled: endpoint("10.0.0.1", 3) };
  client.tunnel.sendOpen(open);
  client.sendData("a");
  client.sendData("b");
  client.send("END");
  far.send("ACCEPT");
  far.tunnel.sendRefuse(300);
  far.send("RESET");
  await s.bench.until(() => far.last === "end" && client.last === "reset");
  deepStrictEqual(far.seen, ["secured", "open 80", "data ab", "end"]);
  deepStrictEqual(far.opened, open);
  deepStrictEqual(client.seen, ["secured", "accept", "refuse 300", "reset"]);
});

scene("connecting: nobody listens is lost, once, with the errno", async (s) => {
  s.server.listener?.[Symbol.dispose]();
  const client = s.bench.dial(s.pod, s.server.address);
  await s.bench.until(() => client.isLost);
  s.bench.turn();
  deepStrictEqual(client.seen, ["lost: cannot connect: ECONNREFUSED"]);
  ok(client.tunnel.closed);
});

scene("handshake: what is no TLS is refused", async (s) => {
  const socket = Socket.forAddress(bytes("127.0.0.1"));
  socket.connect(endpoint(s.server.address, TUNNEL_PORT));
  await s.bench.until(() => s.server.tunnels.length === 1);
  const { sendBytes } = await import("../../native/socket.ts");
  sendBytes(socket.descriptor, new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"));
  await s.bench.until(() => s.server.tunnel.isLost);
  strictEqual(s.server.tunnel.seen.length, 1);
  socket[Symbol.dispose]();
});

scene("open: a close is told to the other side after all that was sent before it", async (s) => {
  const { client, far } = await s.pair();
  client.sendData("last words");
  client.tunnel.close();
  await s.bench.until(() => far.isLost);
  deepStrictEqual(far.seen.slice(1), ["data last words", "lost: the peer closed the tunnel"]);
  deepStrictEqual(client.seen, ["secured"], "its owner closed it, and is told nothing");
});

scene("open: a TCP end without close_notify is a loss", async (s) => {
  const { client, far } = await s.pair();
  client.tunnel.socket.finish();
  await s.bench.until(() => far.isLost);
  strictEqual(far.last, "lost: the peer closed the connection");
});

scene("lingering: until the peer has closed, or for two seconds", async (s) => {
  const { client, far } = await s.pair();
  client.tunnel.close();
  ok(client.tunnel.closed && !client.tunnel.socket.closed);
  await s.bench.until(() => far.isLost && client.tunnel.socket.closed);
  const next = await s.pair();
  next.far.accepting = false; // does not notice
  next.client.tunnel.close();
  s.bench.later(1_999);
  ok(!next.client.tunnel.socket.closed);
  s.bench.later(1);
  ok(next.client.tunnel.socket.closed);
});

scene(
  "congested: nothing is lost or out of order, and the owner is told when it is over",
  async (s) => {
    const { client, far } = await s.pair();
    let drained = 0;
    client.drained = () => drained++;
    far.accepting = false;
    let sent = 0;
    const payload = "x".repeat(16_000);
    for (; !client.tunnel.congested; sent += payload.length) {
      client.sendData(payload);
      s.bench.turn(1);
    }
    client.send("END");
    client.tunnel.ready(EPOLLOUT);
    deepStrictEqual([client.tunnel.congested, drained], [true, 0], "not yet");
    far.accepting = true;
    far.tunnel.receive();
    await s.bench.until(() => far.last === "end");
    deepStrictEqual([far.received, client.tunnel.congested, drained], [sent, false, 1]);
  },
);

scene("what has come is read with one call", async (s) => {
  const { client, far } = await s.pair();
  const { engine } = far.tunnel.worker;
  const descriptors: number[] = [];
  engine.receive = (descriptor, most) => {
    descriptors.push(descriptor);
    return TlsEngine.prototype.receive.call(engine, descriptor, most);
  };
  for (const word of ["one", "two"]) client.sendData(word);
  await s.bench.until(() => far.last === "data onetwo");
  deepStrictEqual(descriptors, [far.tunnel.socket.descriptor]);
});

scene("an owner that does not accept is not read for; it is when it does", async (s) => {
  const { client, far } = await s.pair();
  far.accepting = false;
  client.sendData("wait");
  for (let count = 0; count < 5; count++) s.bench.turn();
  strictEqual(far.received, 0);
  far.accepting = true;
  far.tunnel.receive();
  strictEqual(far.last, "data wait");
});

scene("a peer that sends much has its turns like others, and all of it is read", async (s) => {
  const { client, far } = await s.pair();
  using _ = slowReceivers(256); // a read is of 16,448 bytes
  client.tunnel.socket.setOption(SOL_SOCKET, SO_SNDBUF, RMEM_MAX);
  far.tunnel.socket.setOption(SOL_SOCKET, SO_RCVBUF, RMEM_MAX);
  far.accepting = false;
  const payload = "x".repeat(16_380); // 16,406 bytes of TLS
  for (let count = 0; count < 10; count++) client.sendData(payload);
  awaitDelivery(client.tunnel.socket);
  for (let count = 0; count < 5; count++) s.bench.turn();
  far.accepting = true;
  far.tunnel.receive();
  strictEqual(far.received, 4 * payload.length);
  // No other event comes.
  await s.bench.until(() => far.received === 10 * payload.length);
});

scene("an owner that throws loses its tunnel, with what it threw", async (s) => {
  const { client, far } = await s.pair();
  far.end = () => {
    throw new Error("no END here");
  };
  client.send("END");
  await s.bench.until(() => far.isLost && client.isLost);
  match(far.last, /no END here/);
});

scene(
  "a peer that acknowledges what was sent is left alone, however long it takes to read",
  async (s) => {
    const { client, far } = await s.pair();
    far.accepting = false;
    client.sendData("x");
    for (let count = 0; count < 10; count++) s.bench.later(15_000);
    ok(!client.isLost);
  },
);

scene("a peer that vanishes while nothing is under way is asked for, by both sides", async (s) => {
  const { client, far } = await s.pair();
  for (const { tunnel } of [client, far]) {
    const { descriptor } = tunnel.socket;
    const options = [[SOL_SOCKET, SO_KEEPALIVE], [IPPROTO_TCP, TCP_KEEPIDLE]] as const;
    const values = options.map(([level, name]) => {
      const value = new Int32Array(1);
      const length = new Uint8Array(new Uint32Array([4]).buffer);
      const bytes = new Uint8Array(value.buffer);
      strictEqual(libc.getsockopt(descriptor, level, name, bytes, length), 0);
      return value[0];
    });
    deepStrictEqual(values, [1, 20]);
  }
});

scene(
  "current: until the first of the two certificates expires by the wall clock, forwards and back",
  async (s) => {
    const { client } = await s.pair();
    const { tunnel } = client;
    tunnel.agreed(60, Date.now() + 3_600_000);
    strictEqual(tunnel.current, true);
    s.bench.wallOffset = 61_000;
    strictEqual(tunnel.current, false, "the peer's");
    tunnel.agreed(3_600, Date.now() + 30_000);
    strictEqual(tunnel.current, false, "its own");
    s.bench.wallOffset = 0;
    strictEqual(tunnel.current, true);
    s.bench.now += 1e9;
    strictEqual(tunnel.current, true, "the monotonic clock has no say");
  },
);

// asm-generic/socket.h, linux/in.h, linux/tcp.h
const SOL_SOCKET = 1;
const SO_KEEPALIVE = 9;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const IPPROTO_TCP = 6;
const TCP_KEEPIDLE = 4;
/** Of Linux, unless a sysctl says more. */
const RMEM_MAX = 212_992;
