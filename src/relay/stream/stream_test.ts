/**
 * The bytes of one stream, between an application and a relay that does what the test says. No root
 * is needed.
 */
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { EPOLLIN, EPOLLOUT, EPOLLRDHUP } from "../../native/epoll.ts";
import { libc } from "../../native/libc.ts";
import { ScatterBuffer } from "../../native/scatter.ts";
import { Socket } from "../../native/socket.ts";
import {
  Application,
  awaitDelivery,
  bytes,
  slowReceivers,
  takesOnly,
} from "../../standalone/applications_for_tests.ts";
import { RelayBench } from "../../standalone/relay_for_tests.ts";
import type { Script } from "../../standalone/scripted_relay_for_tests.ts";
import { isCrowded } from "../loop/pending.ts";
import type { WorkerContext } from "../loop/worker_context.ts";
import { FRAME, MAX_DATA } from "../tunnel/frame.ts";
import { ALL_EVENTS, type Tunnel, type TunnelOwner } from "../tunnel/tunnel.ts";
import { Stream } from "./stream.ts";

interface Scene {
  readonly bench: RelayBench;
  readonly worker: WorkerContext;
  readonly stream: Stream;
  readonly app: Application;
  /** The stream's tunnel, and the other end of it. */
  readonly tunnel: Tunnel;
  readonly far: Script;
  /** What the stream's owner was told. */
  readonly told: string[];
  /** Until the condition holds; the application reads meanwhile. */
  until(condition: () => boolean): Promise<void>;
  /** Joins the tunnel, where the scene has not; returns the events that somebody else has taken. */
  start(): number;
}

function scene(
  name: string,
  play: (scene: Scene) => Promise<void>,
  { isStarted = true } = {},
): void {
  Deno.test(name, async () => {
    using bench = new RelayBench();
    const worker = bench.worker();
    const server = await bench.script(bench.worker());
    const { tunnel } = bench.dial(await bench.pod(worker, "client"), server.address);
    await bench.until(() => server.tunnel.last === "secured");
    using listener = Socket.forAddress(LOOPBACK);
    listener.bind({ address: LOOPBACK, port: 0 });
    listener.listen();
    using own = Socket.forAddress(LOOPBACK);
    own.connect(listener.localEndpoint());
    const accepted = listener.accept();
    if (typeof accepted === "number") throw new Error("not accepted");
    accepted.socket.resetsOnClose(true);
    const told: string[] = [];
    const stream = new Stream(worker, accepted.socket, {
      released: (clean) => told.push(`released ${clean}`),
      closed: (reason) => told.push(`closed ${reason}`),
    });
    let taken = 0;
    const { descriptor } = accepted.socket;
    worker.loop.register(descriptor, ALL_EVENTS, {
      ready: (events) => void (taken |= events),
      failed: (error) => stream.failed(error),
    });
    let isOpen = false;
    tunnel.owner = ownerOf(stream, () => isOpen);
    const start = () => {
      isOpen = true;
      worker.loop.replace(descriptor, stream);
      stream.start(tunnel, taken);
      return taken;
    };
    if (isStarted) start();
    const app = new Application(own);
    const until = (condition: () => boolean) =>
      bench.until(() => (app.read(), condition()), () => String(condition));
    await play({ bench, worker, stream, app, tunnel, far: server.tunnel, told, until, start });
    stream.reset("the test is over");
  });
}

/** As outbound.ts and inbound.ts hand over what a tunnel tells. */
function ownerOf(stream: Stream, isOpen: () => boolean): TunnelOwner {
  return {
    get accepting() {
      return isOpen() && stream.accepting;
    },
    data: (start, length) => stream.data(start, length),
    batchEnd: () => stream.deliver(),
    drained: () => stream.drained(),
    end: () => stream.end(),
    reset: () => stream.cut("RESET"),
    lost: (reason) => stream.reset(reason),
    secured: () => {},
    open: () => {},
    accept: () => {},
    refuse: () => {},
  };
}

// ---- tunnel to application ----

for (const taken of [0, 1, 9, 10]) {
  scene(`the application's socket takes ${taken} of 10 bytes: all come, in order`, async (s) => {
    takesOnly(taken, s.worker.plain);
    s.far.sendData("0123456789");
    await s.until(() => s.stream.bytesReceived === 10);
    strictEqual(s.stream.accepting, taken === 10, "what is left is waited for");
    s.stream.ready(EPOLLOUT);
    await s.until(() => s.app.received === "0123456789");
    strictEqual(s.stream.accepting, true);
  });
}

scene("the tunnel is not read while the application has not taken everything", async (s) => {
  takesOnly(1, s.worker.plain);
  s.far.sendData("first, ");
  await s.until(() => s.stream.bytesReceived === 7);
  s.far.sendData("second, ");
  s.far.sendData("third");
  for (let count = 0; count < 5; count++) s.bench.turn();
  deepStrictEqual([s.stream.bytesReceived, s.stream.accepting], [7, false]);
  s.stream.ready(EPOLLOUT);
  await s.until(() => s.app.received === "first, second, third");
});

for (const taken of [0, 3_000]) {
  const what = taken === 0 ? ", also when the application takes nothing at first" : "";
  scene(`more DATA frames in one record than one call can write${what}`, async (s) => {
    const payloads = Array.from({ length: 3_000 }, (_, index) => String(index % 10));
    const record = new ScatterBuffer(16_384);
    const { length } = payloads;
    const frames = payloads.flatMap((digit) => [FRAME.DATA, 0, 0, 1, digit.charCodeAt(0)]);
    record.bytes.set(frames);
    if (taken < length) takesOnly(taken, s.worker.plain);
    s.far.tunnel.session.write(record, 0, frames.length);
    s.far.tunnel.flush();
    await s.until(() => s.stream.bytesReceived === length);
    s.stream.ready(EPOLLOUT);
    await s.until(() => s.app.received.length === length);
    strictEqual(s.app.received, payloads.join(""));
  });
}

scene("END while bytes wait: FIN behind the last of them", async (s) => {
  takesOnly(2, s.worker.plain);
  s.far.sendData("bytes");
  s.far.send("END");
  await s.until(() => s.app.received === "by");
  for (let count = 0; count < 5; count++) s.bench.turn();
  s.app.read();
  strictEqual(s.app.end, "");
  s.stream.ready(EPOLLOUT);
  await s.until(() => s.app.end === "fin");
  strictEqual(s.app.received, "bytes");
  deepStrictEqual(s.told, []);
});

/** Until the tunnel is released, while the application has taken two of five bytes. */
async function endFromBothSides(s: Scene): Promise<void> {
  s.app.finish();
  await s.until(() => s.far.last === "end");
  takesOnly(2, s.worker.plain);
  s.far.sendData("bytes");
  s.far.send("END");
  await s.until(() => s.told.length > 0);
}

scene(
  "END from both sides while bytes wait: the tunnel is free, the end is clean, behind the last byte",
  async (s) => {
    await endFromBothSides(s);
    deepStrictEqual(s.told, ["released true"]);
    s.stream.ready(EPOLLOUT);
    await s.until(() => s.app.end === "fin");
    strictEqual(s.app.received, "bytes");
    deepStrictEqual(s.told, ["released true", "closed undefined"]);
  },
);

scene(
  "a reset after both ENDs, before the last byte is taken: the tunnel has been free for long",
  async (s) => {
    await endFromBothSides(s);
    s.app.reset();
    await s.until(() => s.told.length > 1);
    deepStrictEqual(s.told, ["released true", "closed reset by the application"]);
    strictEqual(s.far.last, "end");
  },
);

scene(
  "what waits on both sides when the stream begins is not left there, nor is the end behind it",
  async (s) => {
    s.app.send("banner");
    s.app.finish();
    s.far.sendData("question");
    for (let count = 0; count < 5; count++) s.bench.turn();
    deepStrictEqual([s.stream.bytesReceived, s.stream.bytesSent], [0, 0]);
    strictEqual(s.start() & EPOLLRDHUP, EPOLLRDHUP);
    await s.until(() => s.far.last === "end" && s.app.received === "question");
    deepStrictEqual(s.far.seen, ["secured", "data banner", "end"]);
  },
  { isStarted: false },
);

scene("a stream that ends with bytes that nobody took holds no buffer any more", async (s) => {
  using _ = slowReceivers(255);
  // Where so many are slow its sockets keep little, of which the kernel tells by an event.
  s.far.sendData("first");
  await s.until(() => s.app.received === "first");
  takesOnly(0, s.worker.plain);
  s.far.sendData("too late");
  await s.until(() => !s.stream.accepting);
  strictEqual(isCrowded(), true, "its buffer is the 256th");
  s.stream.reset("the tunnel is gone");
  strictEqual(isCrowded(), false);
  await s.until(() => s.app.end === "reset");
});

for (const frame of ["DATA", "END"] as const) {
  scene(`${frame} after END breaks the tunnel`, async (s) => {
    s.far.send("END");
    await s.until(() => s.app.end === "fin");
    if (frame === "END") s.far.send("END");
    else s.far.sendData("late");
    await s.until(() => s.told.length > 0);
    deepStrictEqual(s.told, [`closed ${frame} after END`]);
    strictEqual(s.stream.bytesReceived, 0);
  });
}

// ---- RESET ----

scene("what comes with RESET in one batch is the application's before it", async (s) => {
  s.far.sendData("last ");
  s.far.sendData("words");
  s.far.send("RESET");
  await s.until(() => s.app.end === "reset");
  strictEqual(s.app.received, "last words");
  deepStrictEqual(s.told, ["closed RESET"]);
});

scene("what the application takes late is its own before RESET, too", async (s) => {
  takesOnly(1, s.worker.plain);
  s.far.sendData("last words");
  s.far.send("RESET");
  await s.bench.until(() => s.stream.bytesReceived === 10);
  s.bench.later(9_000);
  deepStrictEqual(s.told, [], "it is waited for");
  s.stream.ready(EPOLLOUT);
  await s.until(() => s.app.end === "reset");
  strictEqual(s.app.received, "last words");
});

scene("bytes that the kernel still has are not lost by the reset behind them", async (s) => {
  s.app.socket.keepUnread("little");
  const payload = "x".repeat(MAX_DATA);
  for (let frame = 0; frame < 10; frame++) s.far.sendData(payload);
  s.far.send("RESET");
  await s.bench.until(() => s.stream.bytesReceived === 10 * MAX_DATA);
  deepStrictEqual(s.told, [], "more than the application's window takes");
  await s.until(() => (s.bench.later(1), s.app.end === "reset"));
  strictEqual(s.app.received.length, 10 * MAX_DATA);
});

scene("an application that never takes the last bytes is reset after ten seconds", async (s) => {
  takesOnly(1, s.worker.plain);
  s.far.sendData("last words");
  s.far.send("RESET");
  await s.bench.until(() => s.stream.bytesReceived === 10);
  for (let second = 0; second < 11; second++) s.bench.later(1_000);
  await s.bench.until(() => s.told.length > 0);
  deepStrictEqual(s.told, ["closed RESET"]);
});

// ---- application to tunnel ----

scene("an application that has answered and takes no more: the answer, and RESET", async (s) => {
  s.far.sendData("the first part");
  await s.bench.until(() => s.stream.bytesReceived === 14);
  s.tunnel.owner = { ...ownerOf(s.stream, () => true), batchEnd: () => {} };
  s.app.send("413");
  s.app.socket[Symbol.dispose](); // with bytes unread: the kernel resets
  // Before its events are looked at, more comes for it.
  s.worker.plain.bytes.set(new TextEncoder().encode("more"));
  s.worker.plain.clear();
  for (let count = 0; count < 3; count++) {
    s.stream.data(0, 4);
    s.stream.deliver();
  }
  await s.bench.until(() => s.far.last === "reset");
  deepStrictEqual(s.far.seen, ["secured", "data 413", "reset"]);
  strictEqual(s.told.length, 2);
});

scene(
  "while the tunnel is congested the application is not read, then from where it was",
  async (s) => {
    takesOnly(1, s.worker.engine.outgoing);
    s.app.send("first, ");
    await s.until(() => s.tunnel.congested);
    s.app.send("second");
    for (let count = 0; count < 5; count++) s.bench.turn();
    strictEqual(s.stream.bytesSent, 7);
    s.tunnel.ready(EPOLLOUT);
    await s.until(() => s.far.last === "data first, second");
    strictEqual(s.stream.bytesSent, 13);
  },
);

scene("the last bytes and FIN behind them go with one call", async (s) => {
  const { outgoing } = s.worker.engine;
  let calls = 0;
  outgoing.send = (descriptor) => {
    calls++;
    return ScatterBuffer.prototype.send.call(outgoing, descriptor);
  };
  s.app.send("last bytes");
  s.app.finish();
  await s.until(() => s.far.last === "end");
  deepStrictEqual([s.far.seen, calls], [["secured", "data last bytes", "end"], 1]);
});

scene("the last bytes before a reset are sent, and RESET behind them", async (s) => {
  s.app.send("last bytes");
  s.app.reset();
  await s.until(() => s.far.last === "reset");
  deepStrictEqual(s.far.seen, ["secured", "data last bytes", "reset"]);
  deepStrictEqual(s.told, ["closed from the application: ECONNRESET", "released false"]);
});

scene("a reset behind the application's FIN is RESET, too", async (s) => {
  s.app.finish();
  await s.until(() => s.far.last === "end");
  s.app.reset();
  await s.until(() => s.far.last === "reset");
  deepStrictEqual(s.told, ["closed reset by the application", "released false"]);
});

scene("whatever goes wrong in a stream is a reset on both sides", async (s) => {
  s.stream.failed("a bug");
  await s.until(() => s.far.last === "reset" && s.app.end === "reset");
  deepStrictEqual(s.told, ["closed internal error: a bug", "released false"]);
});

scene(
  "an application that sends much has its turns like others, and all of it is sent",
  async (s) => {
    using _ = slowReceivers(256); // a read is of one frame
    const payload = new Uint8Array(10 * MAX_DATA);
    s.app.socket.setOption(SOL_SOCKET, SO_SNDBUF, RMEM_MAX);
    s.stream.app.setOption(SOL_SOCKET, SO_RCVBUF, RMEM_MAX);
    strictEqual(s.app.send(payload), payload.length);
    awaitDelivery(s.app.socket);
    s.stream.ready(EPOLLIN);
    strictEqual(s.stream.bytesSent, 4 * MAX_DATA);
    // The event that there is already is good for four more.
    await s.until(() => s.far.received === payload.length);
  },
);

for (const end of ["and FIN", "and nothing more"]) {
  scene(`what is behind an urgent byte is read, ${end}`, async (s) => {
    s.app.send("before");
    strictEqual(libc.send(s.app.socket.descriptor, new Uint8Array([33]), 1n, MSG_OOB), 1);
    s.app.send(" and behind");
    if (end === "and FIN") s.app.finish();
    // A read ends at the urgent byte, however much is behind it (tcp_recvmsg_locked() in
    // net/ipv4/tcp.c).
    const seen = ["secured", "data before and behind", ...(end === "and FIN" ? ["end"] : [])];
    await s.until(() => s.far.seen.length === seen.length && s.stream.bytesSent === 17);
    deepStrictEqual(s.far.seen, seen);
  });
}

scene(
  "much before an urgent byte and behind it, and a tunnel that takes nothing of it",
  async (s) => {
    const [before, behind] = [4 * MAX_DATA - 1, 4 * MAX_DATA + 1];
    s.app.socket.setOption(SOL_SOCKET, SO_SNDBUF, RMEM_MAX);
    s.stream.app.setOption(SOL_SOCKET, SO_RCVBUF, RMEM_MAX);
    strictEqual(s.app.send(new Uint8Array(before)), before);
    strictEqual(libc.send(s.app.socket.descriptor, new Uint8Array([33]), 1n, MSG_OOB), 1);
    strictEqual(s.app.send(new Uint8Array(behind)), behind);
    awaitDelivery(s.app.socket);
    takesOnly(0, s.worker.engine.outgoing);
    await s.until(() => s.tunnel.congested);
    s.tunnel.ready(EPOLLOUT);
    await s.until(() => s.far.received === before + behind);
  },
);

const LOOPBACK = bytes("127.0.0.1");

// asm-generic/socket.h, linux/socket.h
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
/** Of Linux, unless a sysctl says more. */
const RMEM_MAX = 212_992;
const MSG_OOB = 1;
