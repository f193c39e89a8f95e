/** How a tunnel ends: closed, lost or vanished, with bytes under way. No root is needed. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { TUNNEL_PORT } from "../../constants.ts";
import { newCa } from "../../identity/new_ca.ts";
import { decodePem } from "../../identity/pem.ts";
import { EPOLLOUT } from "../../native/epoll.ts";
import { EAGAIN } from "../../native/errno.ts";
import { ScatterBuffer } from "../../native/scatter.ts";
import { type Delivery, sendBytes } from "../../native/socket.ts";
import { INCOMING_SIZE, TlsEngine, TlsSession } from "../../native/tls_session.ts";
import { shopCredentials } from "../../standalone/authority_for_tests.ts";
import {
  awaitDelivery,
  slowReceivers,
  takesOnly,
} from "../../standalone/applications_for_tests.ts";
import type { Script } from "../../standalone/scripted_relay_for_tests.ts";
import { type Scene, scene } from "../../standalone/tunnel_scene_for_tests.ts";
import { isCrowded } from "../loop/pending.ts";

// ---- before the handshake is done ----

scene("closed while it connects: at once, and its owner is told nothing", async (s) => {
  const client = s.bench.dial(s.pod, s.server.address);
  client.tunnel.close();
  strictEqual(client.tunnel.socket.closed, true);
  s.bench.turn();
  deepStrictEqual(client.seen, []);
  await Promise.resolve();
});

scene("closed in the handshake: at once, and the peer sees the end", async (s) => {
  s.server.listener?.[Symbol.dispose]();
  const silent = s.bench.application(s.server.at(TUNNEL_PORT));
  const client = s.bench.dial(s.pod, s.server.address);
  await s.bench.until(() => (silent.accept()?.received ?? "") !== "");
  client.tunnel.close();
  strictEqual(client.tunnel.socket.closed, true, "there is nobody who could answer a close_notify");
  await s.bench.until(() => silent.accept()?.end === "fin");
  deepStrictEqual(client.seen, []);
});

for (const side of ["client", "server"] as const) {
  scene(`congested in the handshake of the ${side}: it goes on, drained is not told`, async (s) => {
    const worker = side === "client" ? s.pod.worker : s.far;
    const { outgoing } = worker.engine;
    takesOnly(1, outgoing);
    const scripts = [s.bench.dial(s.pod, s.server.address)];
    let drained = 0;
    await s.bench.until(() => {
      if (scripts.length === 1) scripts.push(...s.server.tunnels);
      for (const script of scripts) {
        script.drained = () => drained++;
        if (script.tunnel.congested) script.tunnel.ready(EPOLLOUT);
      }
      return scripts.length === 2 && scripts.every(({ last }) => last === "secured");
    });
    deepStrictEqual([drained, Object.hasOwn(outgoing, "send")], [0, false]);
  });
}

// ---- closed while bytes wait ----

for (const taken of [0, 1, 35, 36]) {
  scene(`the socket takes ${taken} of a record's 36 bytes: all come`, async (s) => {
    const { client, far } = await s.pair();
    takesOnly(taken, client.tunnel.worker.engine.outgoing);
    client.sendData("0123456789");
    strictEqual(client.tunnel.congested, taken < 36);
    client.sendData(", and more");
    client.tunnel.ready(EPOLLOUT);
    await s.bench.until(() => far.last === "data 0123456789, and more");
  });
}

scene("closed while it is congested: what waits goes on, and the end behind it", async (s) => {
  const { client, far } = await s.pair();
  takesOnly(1, client.tunnel.worker.engine.outgoing);
  client.sendData("last words");
  client.send("RESET");
  client.tunnel.close();
  deepStrictEqual([client.tunnel.congested, client.tunnel.socket.closed], [true, false]);
  client.tunnel.ready(EPOLLOUT);
  await s.bench.until(() => far.isLost);
  deepStrictEqual(far.seen, [
    "secured",
    "data last words",
    "reset",
    "lost: the peer closed the tunnel",
  ]);
  deepStrictEqual(client.seen, ["secured"]);
});

scene(
  "closed while it is congested, and not taken: gone after two seconds, never as if that were all",
  async (s) => {
    const { client, far } = await s.pair();
    using _ = slowReceivers(255);
    takesOnly(1, client.tunnel.worker.engine.outgoing);
    client.sendData("half");
    deepStrictEqual([client.tunnel.congested, isCrowded()], [true, true]);
    client.tunnel.close();
    s.bench.later(2_000);
    deepStrictEqual([client.tunnel.socket.closed, isCrowded()], [true, false]);
    await s.bench.until(() => far.isLost);
    deepStrictEqual(far.seen, ["secured", "lost: the peer closed the connection"]);
    deepStrictEqual(client.seen, ["secured"]);
  },
);

scene("what one has left unsent is never sent on another", async (s) => {
  const [broken, other] = [await s.pair(), await s.pair()];
  const { far } = broken;
  far.end = () => {
    takesOnly(0, far.tunnel.worker.engine.outgoing);
    far.sendData("kept");
    far.tunnel.sealData(new ScatterBuffer(64), 0, 10);
    far.tunnel.failed(new Error("of this tunnel"));
  };
  broken.client.send("END");
  await s.bench.until(() => broken.client.isLost);
  other.far.sendData("mine");
  await s.bench.until(() => other.client.last === "data mine");
});

scene("congested: a tunnel that breaks is lost by whoever tries to send what waits", async (s) => {
  const { client, far } = await s.pair();
  takesOnly(1, client.tunnel.worker.engine.outgoing);
  client.sendData("never taken");
  far.tunnel.socket.reset();
  client.tunnel.ready(EPOLLOUT);
  deepStrictEqual(client.seen, ["secured", "lost: ECONNRESET"]);
});

// ---- lingering ----

scene("lingering: what came unread does not turn the end into a reset", async (s) => {
  const { client, far } = await s.pair();
  client.accepting = far.accepting = false;
  far.sendData("nobody reads this");
  for (let count = 0; count < 5; count++) s.bench.turn();
  client.sendData("last words");
  client.tunnel.close();
  s.bench.turn();
  far.sendData("nor this");
  s.bench.turn();
  s.bench.later(2_000);
  strictEqual(client.tunnel.socket.closed, true);
  far.accepting = true;
  far.tunnel.receive();
  deepStrictEqual(far.seen, ["secured", "data last words", "lost: the peer closed the tunnel"]);
  deepStrictEqual(client.seen, ["secured"]);
});

scene(
  "lingering: a peer that goes on sending has its turns like others, for two seconds",
  async (s) => {
    const { client, far } = await s.pair();
    far.accepting = false;
    const { engine } = client.tunnel.worker;
    let calls = 0;
    engine.receive = () => ++calls < 1_000 ? INCOMING_SIZE : -EAGAIN;
    client.tunnel.close();
    for (let turn = 0; turn < 5; turn++) {
      const before = calls;
      s.bench.turn(1);
      const rounds = calls - before;
      ok(rounds === 4 || rounds === 8, `${rounds} in turn ${turn}, with or without an event`);
    }
    s.bench.later(2_000);
    strictEqual(client.tunnel.socket.closed, true);
  },
);

// ---- lost ----

for (const end of ["FIN", "RST"] as const) {
  scene(`data and ${end} that have come together are both read`, async (s) => {
    const { client, far } = await s.pair();
    far.accepting = false;
    client.sendData("all of it");
    awaitDelivery(client.tunnel.socket);
    if (end === "FIN") client.tunnel.socket.finish();
    else client.tunnel.socket.reset();
    for (let count = 0; count < 5; count++) s.bench.turn();
    far.accepting = true;
    far.tunnel.receive(); // no other event will come
    const reason = end === "FIN" ? "the peer closed the connection" : "ECONNRESET";
    deepStrictEqual(far.seen, ["secured", "data all of it", `lost: ${reason}`]);
  });
}

scene("a certificate that is refused: the peer is told why, by an alert", async (s) => {
  const mine = await shopCredentials(s.pod.description.addresses, "client");
  const { certificate } = await newCa("cluster.local");
  s.pod.renew({ ...mine, roots: decodePem(certificate, "CERTIFICATE") });
  const client = s.bench.dial(s.pod, s.server.address);
  await s.bench.until(() => client.isLost && s.server.tunnel.isLost);
  match(client.last, /certificate refused/);
  match(s.server.tunnel.last, /alert unknown ca/);
});

scene("open: a record that is none is answered by an alert", async (s) => {
  const { client, far } = await s.pair();
  sendBytes(client.tunnel.socket.descriptor, new Uint8Array([23, 3, 3, 0, 20, ...new Array(20)]));
  await s.bench.until(() => client.isLost && far.isLost);
  match(far.last, /bad record mac/);
  match(client.last, /alert bad record mac/);
});

scene("data and the end behind them: the owner has all of the data when it is told", async (s) => {
  const { client, far } = await s.pair();
  far.batchEnd = () => far.seen.push("all of it");
  far.accepting = false;
  client.sendData("last words");
  client.tunnel.close();
  for (let count = 0; count < 5; count++) s.bench.turn();
  far.accepting = true;
  far.tunnel.receive();
  const lost = "lost: the peer closed the tunnel";
  deepStrictEqual(far.seen, ["secured", "data last words", "all of it", lost]);
});

scene("bytes that hold none of ours: 32 KiB, no more, whatever comes between them", async (s) => {
  const { client, far } = await s.pair();
  const { session, worker: { engine } } = far.tunnel;
  let isData = false;
  session.read = (plain, offset) => {
    const count = TlsSession.prototype.read.call(session, plain, offset);
    return isData || count < 0 ? count : 0; // as if they were key updates
  };
  let taken = 0;
  engine.feed = (count) => {
    taken += count;
    TlsEngine.prototype.feed.call(engine, count);
  };
  const sendRecord = async (length: number) => {
    taken = 0;
    client.sendData("x".repeat(length - 26));
    await s.bench.until(() => taken === length);
  };
  await sendRecord(16_384);
  isData = true;
  await sendRecord(16_384);
  isData = false;
  await sendRecord(16_384);
  deepStrictEqual([far.isLost, far.received], [false, 16_384 - 26]);
  await sendRecord(27);
  strictEqual(far.last, "lost: the peer sends records without data");
});

scene("a tunnel that has ended is counted no more: its memory may be given back", async (s) => {
  const { client, far } = await s.pair();
  let open = 0;
  client.tunnel.worker.memory.closed = () => open++;
  client.tunnel.close();
  far.tunnel.close();
  await s.bench.until(() => client.tunnel.socket.closed);
  strictEqual(open, 1);
});

// ---- vanished ----

for (
  const [what, found, isLost] of [
    ["29,999 ms of silence", { silentMilliseconds: 29_999, unansweredTries: 9 }, false],
    ["an hour of silence, two tries", { silentMilliseconds: 3_600_000, unansweredTries: 2 }, false],
    ["30 s of silence, three tries", { silentMilliseconds: 30_000, unansweredTries: 3 }, true],
  ] as const
) {
  scene(`unacknowledged: ${what}: ${isLost ? "vanished" : "asked again"}`, async (s) => {
    const { client } = await s.pair();
    const asked = await delivery(s, client, { isComplete: false, ...found });
    client.sendData("x");
    s.bench.later(14_999);
    strictEqual(asked.times, 0);
    for (let times = 1; times <= 3; times++) {
      s.bench.later(times === 1 ? 1 : 15_000);
      strictEqual(asked.times, isLost ? 1 : times);
    }
    const lost = "lost: the peer has vanished: it acknowledges nothing";
    deepStrictEqual(client.seen, isLost ? ["secured", lost] : ["secured"]);
  });
}

scene("everything is acknowledged: asked no more, until more is sent", async (s) => {
  const { client } = await s.pair();
  const found = { isComplete: true, silentMilliseconds: 3_600_000, unansweredTries: 9 };
  const asked = await delivery(s, client, found);
  client.sendData("x");
  for (const [later, times] of [[15_000, 1], [60_000, 1]] as const) {
    s.bench.later(later);
    deepStrictEqual([asked.times, client.isLost], [times, false]);
  }
  client.sendData("y");
  s.bench.later(10_000);
  client.sendData("who goes on sending is asked for no later");
  s.bench.later(5_000);
  strictEqual(asked.times, 2);
});

scene("a tunnel that is closed is not asked for any more", async (s) => {
  const { client, far } = await s.pair();
  const found = { isComplete: false, silentMilliseconds: 30_000, unansweredTries: 3 };
  const asked = await delivery(s, client, found);
  client.sendData("x");
  far.tunnel.close();
  await s.bench.until(() => client.isLost);
  s.bench.later(60_000);
  strictEqual(asked.times, 0, "its descriptor may be another's");
});

scene(
  "a peer that has vanished: the kernel does not go on trying, the connection is reset",
  async (s) => {
    const { client, far } = await s.pair();
    far.accepting = false;
    await delivery(s, client, {
      isComplete: false,
      silentMilliseconds: 30_000,
      unansweredTries: 3,
    });
    client.sendData("x");
    s.bench.later(15_000);
    ok(client.isLost);
    far.accepting = true;
    far.tunnel.receive();
    deepStrictEqual(far.seen, ["secured", "data x", "lost: ECONNRESET"]);
  },
);

/** What TCP will say to a tunnel that waits for nothing now, and how often it was asked. */
async function delivery({ bench }: Scene, { tunnel }: Script, found: Delivery) {
  await bench.until(() => tunnel.socket.delivery().isComplete);
  bench.later(15_000); // of the handshake
  const asked = { times: 0 };
  tunnel.socket.delivery = () => {
    asked.times++;
    return found;
  };
  return asked;
}
