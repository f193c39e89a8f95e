/**
 * Where the outbound side connects to: a peer, one that is not ready, a Service's endpoints; and
 * whether it may still.
 */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { newCa } from "../../identity/new_ca.ts";
import { decodePem } from "../../identity/pem.ts";
import { ECONNREFUSED } from "../../native/errno.ts";
import { shopCredentials } from "../../standalone/authority_for_tests.ts";
import { finish, scene, stateOf } from "../../standalone/outbound_scene_for_tests.ts";
import { type Application, endpoint } from "../../standalone/applications_for_tests.ts";
import { identityOf, socketsOf } from "../../standalone/relay_for_tests.ts";
import type { RelayPod } from "./pod.ts";

scene("a peer that has left while the connection was on its way is still dialled", async (s) => {
  const { bench, pod, server } = s;
  bench.removePeer(server.address);
  const app = s.connect();
  bench.turn();
  // The worker hears of it a moment after the kernel's map has lost it.
  const identity = identityOf("web");
  pod.worker.peers.leaving([{ address: server.address, identity }], pod.worker.now());
  bench.later(20);
  await s.opened();
  server.tunnel.send("ACCEPT");
  await bench.until(() => stateOf(pod) === "streaming");
  app.send("x");
  await bench.until(() => server.tunnel.last === "data x");
});

scene("neither a peer nor a Service any more: reset", async ({ bench, pod, server }) => {
  bench.removePeer(server.address);
  const app = bench.connect(pod, server.at(8080));
  bench.turn();
  bench.later(20);
  await bench.until(() => app.end === "reset");
  deepStrictEqual(bench.refused, ["unknown_peer"]);
});

scene("review: a peer that has left the registry is cut when that is seen twice", async (s) => {
  const { bench, pod, server } = s;
  const app = await s.stream();
  strictEqual(pod.review(), false);
  bench.removePeer(server.address);
  strictEqual(pod.review(), true);
  strictEqual(stateOf(pod), "streaming");
  pod.review();
  await bench.until(() => app.end === "reset" && server.tunnel.isLost);
  deepStrictEqual(bench.refused, ["peer_revoked"]);
});

scene(
  "review: an address that is another pod's by now, under the same identity, is no peer",
  async (s) => {
    const { bench, pod, server } = s;
    const app = await s.stream();
    bench.setPeer(server.address, "web", { generation: 2 });
    pod.review();
    pod.review();
    await bench.until(() => app.end === "reset");
  },
);

scene("other roots: a server whose certificate leads to none of them is cut", async (s) => {
  const { bench, pod, server } = s;
  const app = await s.stream();
  const { certificate } = await newCa("cluster.local");
  const mine = await shopCredentials(pod.description.addresses, "client");
  pod.renew({ ...mine, roots: decodePem(certificate, "CERTIFICATE") });
  await bench.until(() => app.end === "reset" && server.tunnel.isLost);
  deepStrictEqual(bench.refused, ["peer_revoked"]);
});

scene(
  "review: an expired certificate ends a stream when the peer's agent has no other",
  async (s) => {
    const { bench, pod, server } = s;
    const app = await s.stream();
    bench.wallOffset = 3_601_000;
    strictEqual(pod.review(), false, "its agent can serve it, so it has a better one");
    bench.setPeer(server.address, "web", { ready: false });
    pod.review();
    pod.review();
    await bench.until(() => app.end === "reset");
    match(bench.log, /has expired, and the peer's agent has no other/);
  },
);

// ---- a peer that is not ready ----

scene(
  "postponed: a peer that becomes ready within 5 seconds gets the stream at once",
  async (s) => {
    const { bench, server } = s;
    bench.setPeer(server.address, "web", { ready: false });
    const app = s.connect();
    app.send("patient");
    bench.later(4_000);
    deepStrictEqual([server.tunnels.length, app.end], [0, ""], "nothing is dialled");
    bench.setPeer(server.address);
    await s.opened();
    server.tunnel.send("ACCEPT");
    await bench.until(() => server.tunnel.last === "data patient");
  },
);

scene("postponed: refused after 5 seconds, with the reason", async (s) => {
  const { bench, server, pod } = s;
  bench.setPeer(server.address, "web", { ready: false });
  const app = s.connect();
  for (let waited = 0; waited < 4_900; waited += 50) bench.later(50);
  strictEqual(app.end, "");
  for (let waited = 0; waited < 400; waited += 50) bench.later(50);
  await bench.until(() => app.end === "reset");
  deepStrictEqual([bench.refused, pod.worker.postponed.size], [["peer_not_ready"], 0]);
});

scene("postponed: a relay that does not listen is tried again until it does", async (s) => {
  const { bench, server, far } = s;
  server.listener?.[Symbol.dispose]();
  const app = s.connect();
  for (let count = 0; count < 5; count++) {
    await bench.until(() => stateOf(s.pod) === "opening");
    bench.later(250);
  }
  strictEqual(app.end, "");
  const back = await bench.script(far, "web", server.address);
  await bench.until(() => {
    bench.later(50);
    return back.tunnel.last === "open 8080";
  });
  deepStrictEqual(bench.refused, []);
});

scene(
  "postponed: a relay that never listens is peer_not_ready after 5 seconds, and why",
  async (s) => {
    const { bench, server } = s;
    server.listener?.[Symbol.dispose]();
    const app = s.connect();
    const began = bench.now;
    await bench.until(() => {
      bench.later(20);
      return app.end === "reset";
    });
    ok(bench.now - began >= 5_000, `${bench.now - began}`);
    deepStrictEqual(bench.refused, ["peer_not_ready"]);
    match(bench.log, /cannot connect: ECONNREFUSED/);
  },
);

scene(
  "a peer that takes no more connections is there: refused at once, not postponed",
  async (s) => {
    const { bench, pod } = s;
    const full = await bench.pod(bench.worker({ maxConnections: 0 }), "web");
    bench.serve(full);
    const [address = ""] = full.description.addresses;
    bench.setPeer(address, "web");
    const began = bench.now;
    const app = bench.connect(pod, endpoint(address, 8080));
    await bench.until(() => app.end === "reset");
    deepStrictEqual([bench.refused, bench.now - began], [
      ["too_many_connections", "tunnel_lost"],
      0,
    ]);
    match(bench.log, /alert internal error/);
    strictEqual(pod.worker.postponed.size, 0);
  },
);

scene(
  "postponed: a peer that is withdrawn meanwhile is refused, never dialled in clear",
  async (s) => {
    const { bench, server, pod } = s;
    const clear = bench.application(server.at(8080));
    bench.setPeer(server.address, "web", { ready: false });
    const app = s.connect();
    bench.turn();
    bench.removePeer(server.address);
    await bench.until(() => app.end === "reset");
    deepStrictEqual([bench.refused, clear.accept()], [["peer_withdrawn"], undefined]);
    strictEqual(pod.counters.plainStreams, 0);
  },
);

scene("postponed: an application that goes away is not waited for", async (s) => {
  const { bench, server, pod } = s;
  bench.setPeer(server.address, "web", { ready: false });
  const app = s.connect();
  bench.turn();
  app.reset();
  await bench.until(() => pod.connections.size === 0);
  strictEqual(pod.worker.postponed.size, 0);
  bench.setPeer(server.address);
  bench.later(1_000);
  deepStrictEqual([server.tunnels.length, bench.refused], [0, []]);
});

// ---- Services ----

scene(
  "a Service: another endpoint is tried when one refuses; the last refusal is told",
  async (s) => {
    const { bench, server, far, pod } = s;
    const other = await bench.script(far);
    const service = endpoint("127.250.0.1", 80);
    bench.setService(service, [server.at(8080), other.at(8080)]);
    const app = bench.connect(pod, service);
    for (let count = 0; count < 2; count++) {
      const asked = () => [server, other].find(({ tunnel }) => tunnel.last === "open 8080");
      await bench.until(() => asked() !== undefined);
      const script = asked()?.tunnel;
      script?.seen.push("refused");
      script?.tunnel.sendRefuse(ECONNREFUSED);
    }
    await bench.until(() => app.end === "reset");
    deepStrictEqual([bench.refused, pod.counters.retries], [["application_refused"], 1]);
    strictEqual(pod.worker.outstanding.size, 0);
  },
);

scene("a Service: a ready endpoint is preferred to waiting, in every order", async (s) => {
  const { bench, server, far, pod } = s;
  const other = await bench.script(far);
  bench.setPeer(other.address, "web", { ready: false });
  const service = endpoint("127.250.0.2", 80);
  for (let round = 0; round < 8; round++) {
    bench.setService(service, [server.at(8080), other.at(8080)], { set: 10 + round });
    const app = bench.connect(pod, service);
    await bench.until(() => server.tunnel.last === "open 8080");
    server.tunnel.send("ACCEPT");
    await finish(s, app);
  }
  strictEqual(other.tunnels.length, 0);
});

scene("a Service: when none is ready, the first that becomes so gets the stream", async (s) => {
  const { bench, server, far, pod } = s;
  const other = await bench.script(far);
  for (const { address } of [server, other]) bench.setPeer(address, "web", { ready: false });
  const service = endpoint("127.250.0.3", 80);
  bench.setService(service, [server.at(8080), other.at(8080)]);
  const app = bench.connect(pod, service);
  bench.later(1_000);
  strictEqual(app.end, "");
  bench.setPeer(other.address);
  await bench.until(() => other.tunnel.last === "open 8080");
  strictEqual(server.tunnels.length, 0);
});

scene(
  "a Service: an endpoint that was a peer while it was waited for is never dialled in clear",
  async (s) => {
    const { bench, server, pod } = s;
    const clear = bench.application(server.at(8080));
    bench.setPeer(server.address, "web", { ready: false });
    const service = endpoint("127.250.0.4", 80);
    bench.setService(service, [server.at(8080)]);
    const app = bench.connect(pod, service);
    bench.turn();
    bench.removePeer(server.address);
    await bench.until(() => app.end === "reset");
    deepStrictEqual([bench.refused, clear.accept()], [["peer_withdrawn"], undefined]);
  },
);

scene("a Service: an endpoint is busy as long as its streams last", async (s) => {
  const { bench, server, pod } = s;
  const service = endpoint("127.250.0.8", 80);
  bench.setService(service, [server.at(8080)], { set: 11 });
  const app = bench.connect(pod, service);
  await s.opened();
  server.tunnel.send("ACCEPT");
  await bench.until(() => stateOf(pod) === "streaming");
  deepStrictEqual([...pod.worker.outstanding.values()], [1]);
  await finish(s, app);
  strictEqual(pod.worker.outstanding.size, 0);
});

scene(
  "a Service: an endpoint that is not enrolled is reached in clear, and its errors told",
  async (s) => {
    const { bench, pod } = s;
    const service = endpoint("127.250.0.5", 80);
    const [plain, nobody] = [endpoint("127.250.1.1", 8080), endpoint("127.250.1.2", 8080)];
    const server = bench.application(plain);
    bench.setService(service, [plain], { set: 5 });
    const app = bench.connect(pod, service);
    await bench.until(() => server.accept() !== undefined && stateOf(pod) === "streaming");
    bench.later(3_000); // it is there
    app.send("clear");
    server.accept()?.send("too");
    await bench.until(() => server.accept()?.received === "clear" && app.received === "too");
    app.finish();
    await bench.until(() => server.accept()?.end === "fin");
    server.accept()?.finish();
    await bench.until(() => app.end === "fin" && pod.connections.size === 0);
    strictEqual(pod.counters.plainStreams, 1);

    bench.setService(service, [nobody], { set: 6 });
    const refused = bench.connect(pod, service);
    await bench.until(() => refused.end === "reset");
    deepStrictEqual(bench.refused, ["application_refused"]);
    match(bench.log, /127.250.1.2:8080, which is not enrolled, cannot be reached: ECONNREFUSED/);
  },
);

scene(
  "a Service: an endpoint that is not enrolled and does not answer is given up after 3 s",
  async (s) => {
    const { bench, pod } = s;
    const made = socketsOf(pod);
    const service = endpoint(bench.newAddress(), 80);
    const silent = [1, 2].map(() => bench.full(endpoint(bench.newAddress(), 8080)).endpoint);
    bench.setService(service, silent, { set: 8 });
    const app = bench.connect(pod, service);
    bench.turn();
    bench.later(2_999);
    deepStrictEqual(made.map(({ closed }) => closed), [false]);
    bench.later(1);
    deepStrictEqual(made.map(({ closed }) => closed), [true, false], "the other is tried");
    strictEqual(app.end, "");
    bench.later(3_000);
    await bench.until(() => app.end === "reset");
    deepStrictEqual(made.map(({ closed }) => closed), [true, true]);
    deepStrictEqual([bench.refused, pod.counters.plainStreams], [["deadline"], 0]);
  },
);

for (
  const [who, end] of [
    ["its application resets", (_pod: RelayPod, app: Application) => app.reset()],
    ["its pod goes", (pod: RelayPod) => {
      for (const connection of pod.connections) connection.abort();
    }],
  ] as const
) {
  scene(`a Service: when ${who}, an endpoint is not dialled in clear any more`, async (s) => {
    const { bench, pod } = s;
    const made = socketsOf(pod);
    const service = endpoint(bench.newAddress(), 80);
    bench.setService(service, [bench.full(endpoint(bench.newAddress(), 8080)).endpoint], {
      set: 9,
    });
    const app = bench.connect(pod, service);
    bench.turn();
    deepStrictEqual(made.map(({ closed }) => closed), [false]);
    end(pod, app);
    await bench.until(() => pod.connections.size === 0);
    deepStrictEqual([made.map(({ closed }) => closed), bench.refused], [[true], []]);
    await bench.until(() => app.socket.closed || app.end === "reset");
  });
}

for (
  const [how, address, errno] of [
    ["refuses", undefined, "ECONNREFUSED"],
    ["has no route", "255.255.255.255", "ENETUNREACH"],
  ] as const
) {
  scene(`a Service: an endpoint in clear that ${how} leaves no socket behind`, async (s) => {
    const { bench, pod } = s;
    const made = socketsOf(pod);
    const service = endpoint(bench.newAddress(), 80);
    bench.setService(service, [endpoint(address ?? bench.newAddress(), 8080)], { set: 10 });
    const app = bench.connect(pod, service);
    await bench.until(() => app.end === "reset");
    deepStrictEqual(made.map(({ closed }) => closed), [true]);
    deepStrictEqual([bench.refused, pod.connections.size], [["application_refused"], 0]);
    match(bench.log, new RegExp(`is not enrolled, cannot be reached: ${errno}`));
  });
}

scene("a Service without an endpoint: reset, and said", async (s) => {
  const { bench, pod } = s;
  const service = endpoint("127.250.0.6", 80);
  bench.setService(service, [], { set: 7 });
  const app = bench.connect(pod, service);
  await bench.until(() => app.end === "reset");
  deepStrictEqual(bench.refused, ["no_endpoint"]);
});
