/**
 * How long the inbound side keeps a tunnel: before its first stream, while bytes are under way, and
 * after.
 */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { TUNNEL_PORT } from "../../constants.ts";
import { Socket } from "../../native/socket.ts";
import { shopCredentials } from "../../standalone/authority_for_tests.ts";
import { CLIENT_PORT, type Scene, scene } from "../../standalone/inbound_scene_for_tests.ts";
import { bytes, endpoint } from "../../standalone/applications_for_tests.ts";
import { addressOf } from "../../standalone/relay_for_tests.ts";
import type { WorkerContext } from "../loop/worker_context.ts";

scene("deadlines: handshake 10 s, OPEN 5 s, the next OPEN 2 min", async (s) => {
  const { bench, pod } = s;
  const silent = Socket.forAddress(bytes("127.0.0.1"));
  silent.connect(endpoint(addressOf(pod), TUNNEL_PORT));
  await bench.until(() => pod.connections.size === 1);
  bench.later(10_000);
  await bench.until(() => pod.connections.size === 0);
  silent[Symbol.dispose]();
  deepStrictEqual(bench.refused, ["deadline"]);
  const unopened = await s.tunnel();
  bench.later(5_000);
  await bench.until(() => unopened.isLost);
  deepStrictEqual(bench.refused, ["deadline"], "a burst's surplus is nobody's fault");
  const used = await s.tunnel();
  s.open(used, 9);
  await bench.until(() => used.last.startsWith("refuse"));
  bench.later(119_000);
  ok(!used.isLost);
  bench.later(1_000);
  await bench.until(() => used.isLost);
  deepStrictEqual([pod.counters.tunnelsOpen, pod.worker.unopened.size], [0, 0]);
});

scene(
  "who has sent OPEN is no stranger any more, nor is who has gone: neither takes a place of theirs",
  async (s) => {
    const { bench, pod } = s;
    const { unopened } = pod.worker;
    const script = await s.tunnel();
    strictEqual(unopened.size, 1);
    s.open(script, 9);
    await bench.until(() => script.last.startsWith("refuse"));
    deepStrictEqual([unopened.size, pod.counters.tunnelsOpen], [0, 1]);
    const stranger = await s.tunnel();
    strictEqual(unopened.size, 1);
    stranger.tunnel.close();
    await bench.until(() => pod.counters.tunnelsOpen === 1);
    strictEqual(unopened.size, 0);
    ok(!script.isLost);
  },
);

scene(
  "an OPEN before the answer to the one before ends the tunnel, one behind it does not",
  async (s) => {
    const { bench, pod } = s;
    const patient = await s.tunnel();
    for (let count = 1; count <= 3; count++) {
      s.open(patient, TUNNEL_PORT);
      await bench.until(() =>
        patient.seen.filter((one) => one.startsWith("refuse")).length === count
      );
    }
    const hasty = await s.tunnel();
    s.open(hasty, TUNNEL_PORT);
    s.open(hasty, TUNNEL_PORT);
    await bench.until(() => hasty.isLost);
    strictEqual(hasty.seen.filter((one) => one.startsWith("refuse")).length, 1);
    ok(!patient.isLost);
    ok(/OPEN before the one before was answered/.test(bench.log), bench.log);
    strictEqual(pod.counters.tunnelsOpen, 1);
  },
);

scene("a worker that is busier than another keeps no tunnel for a next stream", async (s) => {
  const { bench, client, application } = s;
  const busy = await bench.pod(bench.worker({}, 2), "web");
  bench.serve(busy);
  const server = bench.application(endpoint(addressOf(busy), 8080));
  const script = bench.dial(client, addressOf(busy));
  await bench.until(() => script.last === "secured");
  script.tunnel.sendOpen({
    port: 8080,
    client: endpoint(addressOf(client), CLIENT_PORT),
    dialled: endpoint(addressOf(busy), 8080),
  });
  await bench.until(() => script.last === "accept" && server.accept() !== undefined);
  busy.worker.load.add(64 << 20);
  script.send("END");
  server.accept()?.finish();
  await bench.until(() => script.isLost && busy.counters.tunnelsOpen === 0);
  deepStrictEqual([bench.refused, application.connections.length], [[], 0]);
});

/** A client that has not read the last bytes of a stream: they wait in its tunnel. */
async function unread({ bench, client }: Scene, worker: WorkerContext, beforeEnd = () => {}) {
  bench.hasSmallBuffers = true;
  const pod = await bench.pod(worker, "web");
  bench.serve(pod);
  const there = endpoint(addressOf(pod), 8080);
  const application = bench.application(there);
  const script = bench.dial(client, addressOf(pod));
  await bench.until(() => script.last === "secured");
  bench.hasSmallBuffers = false; // the application's are not
  const from = endpoint(addressOf(client), CLIENT_PORT);
  script.tunnel.sendOpen({ port: 8080, client: from, dialled: there });
  await bench.until(() => script.last === "accept" && application.accept() !== undefined);
  script.send("END");
  await bench.until(() => application.accept()?.end === "fin");
  script.accepting = false;
  beforeEnd();
  application.accept()?.send("x".repeat(60_000));
  application.accept()?.finish();
  await bench.until(() => pod.counters.streamsOpen === 0);
  const read = async () => {
    script.accepting = true;
    script.tunnel.receive();
    await bench.until(() => script.seen.includes("end"));
    strictEqual(script.received, 60_000);
  };
  return { pod, script, read };
}

scene(
  "the last bytes of a stream are waited for as long as they take, and then the next OPEN 2 min",
  async (s) => {
    const { bench } = s;
    const { pod, script, read } = await unread(s, bench.worker());
    for (let count = 0; count < 3; count++) bench.later(120_000);
    deepStrictEqual([pod.counters.tunnelsOpen, script.isLost], [1, false]);
    await read();
    bench.later(119_999);
    strictEqual(pod.counters.tunnelsOpen, 1, "it may carry another stream");
    bench.later(1);
    await bench.until(() => script.isLost);
    deepStrictEqual([pod.counters.tunnelsOpen, bench.refused], [0, []]);
  },
);

for (const why of ["has new credentials", "is busier than another worker"] as const) {
  scene(
    `a tunnel that carries no other stream, as the pod ${why}, ends after the last bytes`,
    async (s) => {
      const { bench } = s;
      const worker = bench.worker({}, 2);
      const isBusy = why === "is busier than another worker";
      const { pod, script, read } = await unread(s, worker, () => {
        if (isBusy) worker.load.add(64 << 20);
      });
      if (!isBusy) pod.renew(await shopCredentials([addressOf(pod)], "web"));
      for (let count = 0; count < 3; count++) bench.later(120_000);
      deepStrictEqual([pod.counters.tunnelsOpen, script.isLost], [1, false]);
      await read();
      await bench.until(() => script.isLost);
      deepStrictEqual([pod.counters.tunnelsOpen, bench.refused], [0, []]);
    },
  );
}

scene("too many are open: a tunnel whose stream has ended gives way", async (s) => {
  const { bench, client } = s;
  const pod = await bench.pod(bench.worker({ maxConnections: 4 }), "small");
  bench.serve(pod);
  const address = addressOf(pod);
  const application = bench.application(endpoint(address, 8080));
  const used = bench.dial(client, address);
  await bench.until(() => used.last === "secured");
  s.open(used);
  await bench.until(() => used.last === "accept" && application.accept() !== undefined);
  const fresh = bench.dial(client, address);
  await bench.until(() => fresh.last === "secured");
  used.send("END");
  application.accept()?.finish();
  await bench.until(() => used.last === "end" && pod.counters.streamsOpen === 0);
  const next = bench.dial(client, address);
  await bench.until(() => next.last === "secured");
  deepStrictEqual([used.isLost, fresh.isLost, bench.refused], [true, false, []]);
});

scene(
  "too many are open: a tunnel gives way when its last bytes are out, and not before",
  async (s) => {
    const { bench, client } = s;
    const { pod, script, read } = await unread(s, bench.worker({ maxConnections: 4 }));
    const dial = async () => {
      const next = bench.dial(client, addressOf(pod));
      await bench.until(() => next.last === "secured" || next.isLost);
      return next;
    };
    const fresh = await dial();
    ok((await dial()).isLost);
    deepStrictEqual([bench.refused, script.isLost], [["too_many_connections"], false]);
    await read();
    bench.turn();
    ok(!(await dial()).isLost, "it takes the other's place");
    deepStrictEqual([bench.refused.length, script.isLost, fresh.isLost], [1, true, false]);
  },
);

scene(
  "too many are open: a tunnel that waits for another stream gives way, one with a stream does not",
  async (s) => {
    const { bench } = s;
    const pod = await bench.pod(bench.worker({ maxConnections: 4 }), "small");
    bench.serve(pod);
    const address = addressOf(pod);
    const waiting = bench.dial(s.client, address);
    await bench.until(() => waiting.last === "secured");
    s.open(waiting, 9);
    await bench.until(() => waiting.last.startsWith("refuse"));
    const fresh = bench.dial(s.client, address);
    await bench.until(() => fresh.last === "secured");
    const next = bench.dial(s.client, address);
    await bench.until(() => next.last === "secured");
    deepStrictEqual([waiting.isLost, fresh.isLost], [true, false]);
    const last = bench.dial(s.client, address);
    await bench.until(() => last.isLost);
    deepStrictEqual(bench.refused.filter((each) => each.startsWith("too_many")), [
      "too_many_connections",
    ]);
  },
);

scene("too many are open: a tunnel that has its next stream gives way no more", async (s) => {
  const { bench, client } = s;
  const pod = await bench.pod(bench.worker({ maxConnections: 4 }), "small");
  bench.serve(pod);
  const address = addressOf(pod);
  bench.application(endpoint(address, 8080));
  const used = bench.dial(client, address);
  await bench.until(() => used.last === "secured");
  s.open(used, 9);
  await bench.until(() => used.last.startsWith("refuse"));
  s.open(used);
  await bench.until(() => used.last === "accept");
  const fresh = bench.dial(client, address);
  await bench.until(() => fresh.last === "secured");
  const next = bench.dial(client, address);
  await bench.until(() => next.isLost);
  deepStrictEqual([used.isLost, fresh.isLost], [false, false]);
});
