/** The inbound side's tunnel when a stream is over and its last bytes are not out yet. No root is needed. */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { EPOLLOUT } from "../../native/epoll.ts";
import { shopCredentials } from "../../standalone/authority_for_tests.ts";
import { addressOf, endpoint, RelayBench, takesOnly } from "../../standalone/relay_for_tests.ts";
import type { Script } from "../../standalone/relay_for_tests.ts";
import { Tunnel } from "../tunnel/tunnel.ts";
import type { RelayPod } from "./pod.ts";

interface Scene {
  readonly bench: RelayBench;
  readonly pod: RelayPod;
  readonly client: RelayPod;
  /** Of the stream's client. */
  readonly script: Script;
  /** Both sides have ended; the pod's end of the tunnel has the last bytes and END in it. */
  end(): Promise<Tunnel>;
}

function scene(name: string, play: (scene: Scene) => Promise<void>): void {
  Deno.test(name, async () => {
    using bench = new RelayBench();
    const worker = bench.worker({ maxConnections: 4 });
    const tunnels: Tunnel[] = [];
    const register = worker.loop.register.bind(worker.loop);
    worker.loop.register = (descriptor, events, handler) => {
      if (handler instanceof Tunnel) tunnels.push(handler);
      register(descriptor, events, handler);
    };
    const pod = await bench.pod(worker, "web");
    const client = await bench.pod(bench.worker(), "client");
    bench.setPeer(addressOf(client), "client");
    bench.serve(pod);
    const application = bench.application(endpoint(addressOf(pod), 8080));
    const script = bench.dial(client, addressOf(pod));
    await bench.until(() => script.last === "secured");
    script.tunnel.sendOpen({
      port: 8080,
      client: endpoint(addressOf(client), 40_000),
      dialled: endpoint(addressOf(pod), 8080),
    });
    await bench.until(() => script.last === "accept" && application.accept() !== undefined);
    const end = async () => {
      const [tunnel] = tunnels;
      if (tunnel === undefined) throw new Error("no tunnel");
      script.send("END");
      await bench.until(() => application.accept()?.end === "fin");
      takesOnly(1, worker.engine.outgoing);
      application.accept()?.send("last bytes");
      application.accept()?.finish();
      await bench.until(() => tunnel.congested && pod.counters.streamsOpen === 0);
      return tunnel;
    };
    await play({ bench, pod, client, script, end });
  });
}

const ALL = ["secured", "accept", "data last bytes", "end"];

scene("retiring: the last bytes are sent before the tunnel ends", async (s) => {
  s.pod.renew(await shopCredentials([addressOf(s.pod)], "web"));
  const tunnel = await s.end();
  s.bench.turn();
  strictEqual(s.pod.counters.tunnelsOpen, 1);
  tunnel.ready(EPOLLOUT);
  strictEqual(s.pod.counters.tunnelsOpen, 0);
  await s.bench.until(() => s.script.isLost);
  deepStrictEqual(s.script.seen, [...ALL, "lost: the peer closed the tunnel"]);
  deepStrictEqual(s.bench.refused, []);
});

scene("retiring: a peer that has not taken them in two minutes is given two more", async (s) => {
  s.pod.renew(await shopCredentials([addressOf(s.pod)], "web"));
  const tunnel = await s.end();
  s.bench.later(120_000);
  strictEqual(s.pod.counters.tunnelsOpen, 1);
  tunnel.ready(EPOLLOUT);
  await s.bench.until(() => s.script.isLost);
  deepStrictEqual(s.script.seen, [...ALL, "lost: the peer closed the tunnel"]);
});

scene("idle: the time for the next stream is not over while the last bytes wait", async (s) => {
  const tunnel = await s.end();
  s.bench.later(120_000);
  strictEqual(s.pod.counters.tunnelsOpen, 1);
  tunnel.ready(EPOLLOUT);
  await s.bench.until(() => s.script.last === "end");
  deepStrictEqual(s.script.seen, ALL);
  s.bench.later(120_000);
  await s.bench.until(() => s.script.isLost);
});

scene("idle: a tunnel in which the last bytes wait does not give way to others", async (s) => {
  const { bench, client, script } = s;
  const tunnel = await s.end();
  const others = [1, 2].map(() => bench.dial(client, addressOf(s.pod)));
  await bench.until(() => others.some(({ isLost }) => isLost));
  deepStrictEqual(bench.refused, ["too_many_connections"]);
  ok(!script.isLost);
  tunnel.ready(EPOLLOUT);
  await bench.until(() => script.last === "end");
  deepStrictEqual(script.seen, ALL);
});
