/**
 * The outbound side's states, against a peer's relay that does what the test says. No root is
 * needed.
 */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { TUNNEL_PORT } from "../../constants.ts";
import { EACCES, ECONNREFUSED, EMFILE } from "../../native/errno.ts";
import { finish, type Scene, scene, stateOf } from "../../standalone/outbound_scene_for_tests.ts";
import { bytes } from "../../standalone/applications_for_tests.ts";
import { identityOf } from "../../standalone/relay_for_tests.ts";

scene(
  "a stream: OPEN names port, client and what was dialled, bytes go both ways, both ends end it",
  async (s) => {
    const { bench, pod, server } = s;
    const app = await s.stream();
    const own = pod.description.addresses[0] ?? "";
    deepStrictEqual(server.tunnel.opened?.client.address, bytes(own), "the pod's, not loopback's");
    deepStrictEqual(server.tunnel.opened?.dialled, server.at(8080));
    app.send("hello");
    server.tunnel.sendData("world");
    await bench.until(() => app.received === "world" && server.tunnel.last === "data hello");
    await finish(s, app);
    strictEqual(pod.counters.tunnelsOpen, 1, "it waits for the next one");
    const [report] = bench.streams;
    deepStrictEqual(
      [report?.bytesSent, report?.bytesReceived, report?.failure, report?.peerIdentity],
      [5, 5, undefined, identityOf("web")],
    );
  },
);

scene("the tunnel is used again, and for both directions of half-close", async (s) => {
  const { bench, server, pod } = s;
  for (let round = 0; round < 3; round++) {
    const app = s.connect();
    await bench.until(() => server.tunnels.length === 1 && server.tunnel.last === "open 8080");
    server.tunnel.send("ACCEPT");
    server.tunnel.send("END"); // the server ends first
    await bench.until(() => app.end === "fin");
    app.send(`late ${round}`);
    app.finish();
    await bench.until(() => server.tunnel.last === "end" && pod.counters.streamsOpen === 0);
    ok(server.tunnel.seen.includes(`data late ${round}`));
  }
  strictEqual(server.tunnels.length, 1);
});

scene(
  "what an application sends before it resets arrives, also when nobody has answered yet",
  async (s) => {
    const { bench, server } = s;
    const app = s.connect();
    app.send("fire");
    app.reset();
    await s.opened();
    server.tunnel.send("ACCEPT");
    await bench.until(() => server.tunnel.seen.includes("reset"));
    const { seen } = server.tunnel;
    deepStrictEqual(seen.slice(seen.indexOf("open 8080"), seen.indexOf("reset")), [
      "open 8080",
      "data fire",
    ]);
  },
);

scene(
  "an application that resets without a word is gone, and nobody is asked for it",
  async (s) => {
    const { bench, pod, server } = s;
    const app = s.connect();
    app.reset();
    await bench.until(() => pod.counters.streamsOpen === 0 && pod.counters.streams === 1);
    ok(!server.tunnel.seen.includes("open 8080"));
  },
);

scene("a connection that connect() did not redirect is reset", async ({ bench, pod, server }) => {
  const app = bench.connect(pod, server.at(8080), { isNoted: false });
  await bench.until(() => app.end === "reset");
  deepStrictEqual(bench.refused, ["no_flow"]);
});

scene("too many are open: the next one is reset", async ({ bench, server }) => {
  const pod = await bench.pod(bench.worker({ maxConnections: 2 }), "client");
  bench.connect(pod, server.at(8080));
  const app = bench.connect(pod, server.at(8080));
  await bench.until(() => app.end === "reset");
  deepStrictEqual(bench.refused, ["too_many_connections"]);
});

for (
  const [errno, reason, text] of [
    [EMFILE, "no_resources", /the agent of 127\.[\d.]+:8080 cannot connect .*: EMFILE/],
    [ECONNREFUSED, "application_refused", /127\.[\d.]+:8080 refused the connection: ECONNREFUSED/],
    [
      EACCES,
      "policy_denied",
      /policy of 127.*:8080 \(spiffe.*sa\/web\) does not allow .*sa\/client/,
    ],
  ] as const
) {
  scene(`REFUSE ${errno} is a reset that says who: ${reason}; the tunnel is kept`, async (s) => {
    const { bench, server, pod } = s;
    const app = s.connect();
    await s.opened();
    server.tunnel.tunnel.sendRefuse(errno);
    await bench.until(() => app.end === "reset");
    deepStrictEqual(bench.refused, [reason]);
    match(bench.log, text);
    strictEqual(pod.counters.tunnelsOpen, 1);
    s.connect();
    await s.opened(1);
  });
}

scene("asked: a tunnel that breaks is a reset, and no other one is tried", async (s) => {
  const { bench, server, pod } = s;
  const app = s.connect();
  await s.opened();
  server.tunnel.tunnel.close();
  await bench.until(() => app.end === "reset");
  deepStrictEqual(bench.refused, ["tunnel_lost"]);
  strictEqual(pod.counters.tunnelsOpen, 0);
});

scene("asked: no answer for 16 seconds is a reset", async (s) => {
  const { bench, pod } = s;
  const app = s.connect();
  await s.opened();
  bench.later(15_999);
  strictEqual(app.end, "");
  bench.later(1);
  await bench.until(() => app.end === "reset");
  deepStrictEqual([bench.refused, pod.counters.tunnelsOpen], [["deadline"], 0]);
});

scene("waiting: a peer whose handshake takes ten seconds is given up", async (s) => {
  const { bench, server, pod } = s;
  server.listener?.[Symbol.dispose]();
  bench.application(server.at(TUNNEL_PORT)); // takes connections and says nothing
  const app = s.connect();
  bench.turn();
  bench.later(10_000);
  await bench.until(() => app.end === "reset");
  deepStrictEqual([bench.refused, pod.counters.tunnelsOpen], [["deadline"], 0]);
});

scene("waiting and asked: an application that resets takes everything with it", async (s) => {
  const { bench, server, pod } = s;
  s.connect().reset();
  await bench.until(() => pod.connections.size === 0);
  const app = s.connect();
  await bench.until(() => server.tunnel.last === "open 8080");
  app.reset();
  await bench.until(() => pod.connections.size === 0 && server.tunnel.isLost);
  deepStrictEqual(bench.refused, [], "an application's own affair");
});

scene("waiting: what the application has sent and its FIN are not lost", async (s) => {
  const { bench, server } = s;
  const app = s.connect();
  app.send("all of it");
  app.finish();
  await s.opened();
  server.tunnel.send("ACCEPT");
  await bench.until(() => server.tunnel.last === "end");
  ok(server.tunnel.seen.includes("data all of it"));
  server.tunnel.sendData("answer");
  server.tunnel.send("END");
  await bench.until(() => app.end === "fin" && app.received === "answer");
});

scene("DATA, END and an ACCEPT in one read are handled in their order", async (s) => {
  const { bench, server } = s;
  const app = s.connect();
  await s.opened();
  server.tunnel.send("ACCEPT");
  server.tunnel.sendData("first");
  server.tunnel.send("END");
  await bench.until(() => app.end === "fin" && app.received === "first");
  await finish(s, app);
});

for (const frame of ["DATA", "END"] as const) {
  scene(`${frame} before ACCEPT breaks the tunnel and resets the application`, async (s) => {
    const { bench, server } = s;
    const app = s.connect();
    await s.opened();
    if (frame === "DATA") server.tunnel.sendData("too early");
    else server.tunnel.send("END");
    await bench.until(() => app.end === "reset");
    deepStrictEqual([app.received, bench.refused], ["", ["tunnel_lost"]]);
  });
}

scene("streaming: it lasts as long as it lasts, whatever ACCEPT had to come within", async (s) => {
  const { bench, server } = s;
  const app = await s.stream();
  bench.later(16_000);
  app.send("late");
  await bench.until(() => server.tunnel.last === "data late");
  strictEqual(app.end, "");
});

scene("streaming: a second ACCEPT, a REFUSE or an OPEN breaks it", async (s) => {
  const { bench, server } = s;
  for (const [index, wrong] of ["accept", "refuse", "open"].entries()) {
    const app = s.connect();
    await bench.until(() =>
      server.tunnels.length === index + 1 && server.tunnel.last === "open 8080"
    );
    server.tunnel.send("ACCEPT");
    if (wrong === "accept") server.tunnel.send("ACCEPT");
    if (wrong === "refuse") server.tunnel.tunnel.sendRefuse(111);
    if (wrong === "open") {
      server.tunnel.tunnel.sendOpen({ port: 1, client: server.at(1), dialled: server.at(1) });
    }
    await bench.until(() => app.end === "reset");
  }
  deepStrictEqual(bench.refused, ["tunnel_lost", "tunnel_lost", "tunnel_lost"]);
});

scene(
  "streaming: the other application's reset is a reset here; the tunnel is not used again",
  async (s) => {
    const { bench, server, pod } = s;
    const app = await s.stream();
    server.tunnel.send("RESET");
    await bench.until(() => app.end === "reset" && pod.counters.tunnelsOpen === 0);
    strictEqual(bench.streams[0]?.failure, "reset by the destination's application");
  },
);

scene("streaming: this application's reset is a RESET there", async (s) => {
  const { bench, server, pod } = s;
  const app = await s.stream();
  app.reset();
  await bench.until(() => pod.connections.size === 0 && server.tunnel.isLost);
  ok(server.tunnel.seen.includes("reset"), server.tunnel.seen.join());
  strictEqual(pod.counters.tunnelsOpen, 0);
});

scene("streaming: a tunnel that breaks is a reset, never a clean end", async (s) => {
  const { bench, server } = s;
  const app = await s.stream();
  server.tunnel.tunnel.close();
  await bench.until(() => app.end === "reset");
  deepStrictEqual(bench.refused, ["tunnel_lost"]);
});

scene("abort: a reset in each state", async (s) => {
  const { bench, pod, server } = s;
  const abort = () => [...pod.connections].forEach((connection) => connection.abort());
  bench.setPeer(server.address, "web", { ready: false });
  const postponed = s.connect();
  abort();
  bench.setPeer(server.address);
  const waiting = s.connect();
  abort();
  const asked = s.connect();
  await bench.until(() => server.tunnel.last === "open 8080");
  abort();
  await bench.until(() => [postponed, waiting, asked].every(({ end }) => end === "reset"));
  strictEqual(pod.connections.size, 0);
  const app = s.connect();
  await bench.until(() => server.tunnel.last === "open 8080");
  server.tunnel.send("ACCEPT");
  await bench.until(() => stateOf(pod) === "streaming");
  abort();
  await bench.until(() => app.end === "reset" && server.tunnel.isLost);
  strictEqual(pod.connections.size, 0);
});

scene("reused: a tunnel that turns out to be dead costs nobody the connection", async (s) => {
  const { bench, server, pod } = s;
  await finish(s, await s.stream());
  s.connect();
  await bench.until(() => server.tunnel.seen.filter((one) => one === "open 8080").length === 2);
  server.tunnel.tunnel.close();
  await s.opened(2);
  deepStrictEqual([bench.refused, pod.counters.tunnelsOpen], [[], 1]);
});

/**
 * Two tunnels that wait for their next stream; the one that has been asked for it is named by the
 * second function.
 */
async function twoIdle(s: Scene) {
  const { bench, server, pod } = s;
  const apps = [s.connect(), s.connect()];
  await bench.until(() => server.tunnels.filter(({ last }) => last === "open 8080").length === 2);
  for (const [index, app] of apps.entries()) {
    server.tunnels[index]?.send("ACCEPT");
    server.tunnels[index]?.send("END");
    app.finish();
  }
  await bench.until(() => pod.connections.size === 0);
  strictEqual(pod.counters.tunnelsOpen, 2);
  return () => server.tunnels.filter(({ seen }) => opensOf(seen) === 2);
}

function opensOf(seen: readonly string[]): number {
  return seen.filter((one) => one === "open 8080").length;
}

scene("reused: with one that turns out to be dead the others that wait go, too", async (s) => {
  const { bench, server, pod } = s;
  const asked = await twoIdle(s);
  s.connect();
  await bench.until(() => asked().length === 1);
  asked()[0]?.tunnel.close();
  await s.opened(3);
  await bench.until(() => server.tunnels.slice(0, 2).every(({ tunnel }) => tunnel.closed));
  strictEqual(pod.counters.tunnelsOpen, 1);
});

scene("reused: the last stream's RESET is not this one's", async (s) => {
  const { bench, server } = s;
  await finish(s, await s.stream());
  const app = s.connect();
  await bench.until(() => opensOf(server.tunnel.seen) === 2);
  server.tunnel.send("RESET");
  await s.opened(2);
  strictEqual(app.end, "");
});

scene("reused: the last stream's RESET says nothing of the other tunnels that wait", async (s) => {
  const { bench, server, pod } = s;
  const asked = await twoIdle(s);
  const app = s.connect();
  await bench.until(() => asked().length === 1);
  asked()[0]?.send("RESET");
  await bench.until(() => asked().length === 2);
  deepStrictEqual([server.tunnels.length, pod.counters.tunnelsOpen, app.end], [2, 1, ""]);
});

scene("reused: one that was reset a moment ago, so that OPEN cannot even be sent", async (s) => {
  const { server, pod } = s;
  await finish(s, await s.stream());
  server.tunnel.tunnel.socket.reset(); // nobody has been told of it yet
  const app = s.connect();
  await s.opened(2);
  deepStrictEqual([pod.counters.tunnelsOpen, app.end], [1, ""]);
});

scene("reused: no answer for 4 seconds is worth a new tunnel", async (s) => {
  const { bench, server } = s;
  await finish(s, await s.stream());
  const app = s.connect();
  await bench.until(() => server.tunnel.seen.filter((one) => one === "open 8080").length === 2);
  bench.later(4_000);
  await s.opened(2);
  strictEqual(app.end, "");
});

scene("reused: not once a certificate has expired by the wall clock", async (s) => {
  const { bench, server, pod } = s;
  await finish(s, await s.stream());
  bench.wallOffset = 3_601_000;
  const app = s.connect();
  await bench.until(() => app.end === "reset");
  strictEqual(server.tunnels.length, 1, "no handshake is begun with what has expired");
  deepStrictEqual([bench.refused, pod.counters.tunnelsOpen], [["certificate_expired"], 0]);
});

scene("finishing: last bytes that the tunnel does not take yet are waited for", async (s) => {
  const { bench, server, pod } = s;
  const app = await s.stream();
  server.tunnel.accepting = false;
  let sent = 0;
  const chunk = new Uint8Array(1 << 20);
  for (let idle = 0; idle < 3;) {
    const count = app.send(chunk);
    sent += Math.max(count, 0);
    idle = count > 0 ? 0 : idle + 1;
    bench.turn();
  }
  app.finish();
  server.tunnel.send("END");
  await bench.until(() => app.end === "fin");
  strictEqual(stateOf(pod), "streaming", "it is not over");
  server.tunnel.accepting = true;
  server.tunnel.tunnel.receive();
  await bench.until(() => server.tunnel.last === "end" && pod.connections.size === 0);
  strictEqual(server.tunnel.received, sent);
  strictEqual(bench.streams[0]?.bytesSent, sent);
  strictEqual(pod.counters.tunnelsOpen, 1);
});

scene(
  "finishing: last bytes that the application does not take yet do not hold the tunnel",
  async (s) => {
    const { bench, server, pod } = s;
    const app = await s.stream();
    app.read = () => {};
    const payload = "x".repeat(16_000);
    for (let count = 0; count < 1_000 && stateOf(pod) === "streaming"; count++) {
      if (!server.tunnel.tunnel.congested) server.tunnel.sendData(payload);
      bench.turn(1);
    }
    app.finish();
    server.tunnel.send("END");
    bench.turn(20);
    strictEqual(pod.connections.size, 1);
    delete (app as { read?: () => void }).read;
    await bench.until(() => app.end === "fin");
    strictEqual(pod.connections.size, 0);
  },
);

scene(
  "finishing: the tunnel is nobody else's while the last bytes and END wait in it",
  async (s) => {
    const { bench, pod, far } = s;
    bench.hasSmallBuffers = true;
    const server = await bench.script(far);
    const app = bench.connect(pod, server.at(8080));
    await bench.until(() => server.tunnel.last === "open 8080");
    server.tunnel.send("ACCEPT");
    server.tunnel.send("END");
    await bench.until(() => app.end === "fin");
    server.tunnel.accepting = false;
    app.send("x".repeat(60_000));
    app.finish();
    for (let count = 0; count < 5; count++) bench.turn();
    strictEqual(pod.connections.size, 1, "it is not over");
    bench.connect(pod, server.at(9090));
    await bench.until(() => server.tunnels.length === 2, () => "another tunnel for another stream");
    const [first] = server.tunnels;
    if (first === undefined) throw new Error("no tunnel");
    first.accepting = true;
    first.tunnel.receive();
    await bench.until(() => first.last === "end" && pod.connections.size === 1);
    strictEqual(first.received, 60_000);
    strictEqual(bench.streams[0]?.failure, undefined);
  },
);

scene("finishing: a tunnel that breaks with the last bytes in it is told as that", async (s) => {
  const { bench, pod, far } = s;
  bench.hasSmallBuffers = true;
  const server = await bench.script(far);
  const app = bench.connect(pod, server.at(8080));
  await bench.until(() => server.tunnel.last === "open 8080");
  server.tunnel.send("ACCEPT");
  server.tunnel.send("END");
  await bench.until(() => app.end === "fin");
  server.tunnel.accepting = false;
  app.send("x".repeat(60_000));
  app.finish();
  for (let count = 0; count < 5; count++) bench.turn();
  server.tunnel.tunnel.socket.reset();
  await bench.until(() => pod.connections.size === 0);
  match(bench.streams[0]?.failure ?? "", /the tunnel failed: (ECONNRESET|EPIPE)/);
  strictEqual(pod.counters.tunnelsOpen, 0);
});
