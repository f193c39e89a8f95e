/**
 * Where a connection to a Service may go, with a Map in the place of each kernel map. No root is
 * needed.
 */
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { text } from "../../native/socket.ts";
import { endpoint } from "../../standalone/applications_for_tests.ts";
import { RelayBench } from "../../standalone/relay_for_tests.ts";
import type { RelayPod } from "./pod.ts";
import { PeerRoute } from "./route.ts";
import { ServiceRoute } from "./service_route.ts";

const SERVICE = endpoint("10.96.0.1", 80);
const [A, B, C] = [
  endpoint("10.0.0.1", 8080),
  endpoint("10.0.0.2", 8080),
  endpoint("10.0.0.3", 8080),
];

interface Scene {
  readonly bench: RelayBench;
  readonly pod: RelayPod;
  route(): ServiceRoute;
}

function scene(name: string, play: (scene: Scene) => void, strictEgress = false): void {
  Deno.test(name, async () => {
    using bench = new RelayBench();
    const pod = await bench.pod(bench.worker(), "client", { strictEgress });
    const route = () => {
      const found = ServiceRoute.find(pod, SERVICE);
      if (found === undefined) throw new Error("no Service");
      return found;
    };
    play({ bench, pod, route });
  });
}

/** Everything that a route gives, as text. */
function all(route: ServiceRoute): string[] {
  const targets: string[] = [];
  for (let target = route.next(); target !== undefined; target = route.next()) {
    targets.push(`${text(target.endpoint)} ${target.peer === undefined ? "plain" : "tunnel"}`);
  }
  return targets;
}

scene("each endpoint once, in any order, five at most", ({ bench, pod, route }) => {
  bench.setPeer("10.0.0.1");
  bench.setService(SERVICE, [A, B, C]);
  deepStrictEqual(all(route()).sort(), [
    "10.0.0.1:8080 tunnel",
    "10.0.0.2:8080 plain",
    "10.0.0.3:8080 plain",
  ]);
  const many = Array.from({ length: 20 }, (_, index) => endpoint(`10.0.1.${index}`, 1));
  bench.setService(SERVICE, many, { set: 2 });
  strictEqual(all(route()).length, 5);
  strictEqual(pod.worker.outstanding.size, 0, "what was tried is not counted as busy");
});

scene("strict egress: none in clear", ({ bench, route }) => {
  bench.setPeer("10.0.0.1");
  bench.setService(SERVICE, [A, B]);
  deepStrictEqual(all(route()), ["10.0.0.1:8080 tunnel"]);
  bench.maps.frontends.entries.clear();
  bench.setService(SERVICE, [B], { set: 2 });
  deepStrictEqual(all(route()), []);
  const gone = route();
  bench.maps.frontends.entries.clear();
  bench.maps.backends.entries.clear();
  deepStrictEqual(all(gone), [], "nor through kube-proxy when the Service is gone");
}, true);

scene(
  "the pod itself is reached without a tunnel, also with strict egress",
  ({ bench, pod, route }) => {
    const own = endpoint(pod.description.addresses[0] ?? "", 8080);
    bench.setService(SERVICE, [own]);
    deepStrictEqual(all(route()), [`${text(own)} plain`]);
  },
  true,
);

scene("the less busy of two", ({ bench, pod, route }) => {
  bench.setService(SERVICE, [A, B]);
  pod.worker.outstanding.set(text(A), 1_000);
  const chosen = Array.from({ length: 40 }, () => {
    const one = route();
    const target = one.next();
    one.close();
    return text(target?.endpoint ?? SERVICE);
  });
  ok(chosen.filter((one) => one === text(B)).length > 20, "A only when both picks are A");
});

scene("an endpoint is as busy as it has connections", ({ bench, pod, route }) => {
  bench.setService(SERVICE, [A]);
  const [one, other] = [route(), route()];
  for (const each of [one, other]) each.next();
  strictEqual(pod.worker.outstanding.get(text(A)), 2);
  one.close();
  one.close();
  strictEqual(pod.worker.outstanding.get(text(A)), 1);
  other.close();
  strictEqual(pod.worker.outstanding.size, 0);
});

scene(
  "a client stays with its endpoint while the affinity lasts, by the wall clock",
  ({ bench, route }) => {
    bench.setService(SERVICE, [A, B, C], { affinity: 60 });
    const first = route();
    const chosen = first.next();
    first.accepted();
    first.close();
    for (let count = 0; count < 10; count++) {
      const next = route();
      deepStrictEqual(next.next()?.endpoint, chosen?.endpoint);
      next.close();
    }
    bench.wallOffset = 61_000;
    const later = new Set(
      Array.from({ length: 60 }, () => text(route().next()?.endpoint ?? SERVICE)),
    );
    ok(later.size > 1, [...later].join());
  },
);

scene("the affinity lasts from the client's last connection on", ({ bench, route }) => {
  bench.setService(SERVICE, [A, B, C], { affinity: 60 });
  const chosen = new Set<string>();
  for (let count = 0; count < 12; count++) {
    const one = route();
    chosen.add(text(one.next()?.endpoint ?? SERVICE));
    one.accepted();
    one.close();
    bench.wallOffset += 40_000;
  }
  strictEqual(chosen.size, 1);
});

scene(
  "not ready: ready ones first; what is not is awaited, and found in the next round",
  ({ bench, route }) => {
    bench.setPeer("10.0.0.1", "web", { ready: false });
    bench.setPeer("10.0.0.2");
    bench.setService(SERVICE, [A, B]);
    const one = route();
    strictEqual(text(one.next()?.endpoint ?? SERVICE), text(B));
    strictEqual(one.next(), undefined);
    strictEqual(one.isAwaited, true);
    one.again();
    strictEqual(one.next(), undefined, "still not, and B has failed");
    bench.setPeer("10.0.0.1");
    one.again();
    strictEqual(text(one.next()?.endpoint ?? SERVICE), text(A));
  },
);

scene("not ready: a sticky client goes elsewhere rather than wait", ({ bench, route }) => {
  bench.setPeer("10.0.0.1");
  bench.setPeer("10.0.0.2", "web", { ready: false });
  bench.setService(SERVICE, [A, B], { affinity: 60 });
  const first = route();
  first.next();
  first.accepted();
  bench.setPeer("10.0.0.1", "web", { ready: false });
  bench.setPeer("10.0.0.2");
  strictEqual(text(route().next()?.endpoint ?? SERVICE), text(B));
});

scene(
  "not ready: refusing relays are no attempts, so that waiting does not use them up",
  ({ bench, route }) => {
    bench.setPeer("10.0.0.1");
    bench.setService(SERVICE, [A]);
    const one = route();
    for (let round = 0; round < 50; round++) {
      ok(one.next(), `round ${round}`);
      one.notReady();
      strictEqual(one.next(), undefined);
      strictEqual(one.isAwaited, true);
      one.again();
    }
  },
);

scene("not ready: nobody is awaited when the attempts are used up", ({ bench, route }) => {
  bench.setPeer("10.0.0.1", "web", { ready: false });
  bench.setService(SERVICE, [A]);
  const one = route();
  deepStrictEqual([one.next(), one.isAwaited], [undefined, true]);
  const others = Array.from({ length: 6 }, (_, index) => endpoint(`10.0.1.${index}`, 1));
  bench.setService(SERVICE, [A, ...others], { set: 2 });
  strictEqual(all(one).length, 5);
  strictEqual(one.isAwaited, false);
});

scene("not ready: the next round is about the endpoints that there are now", ({ bench, route }) => {
  bench.setPeer("10.0.0.1", "web", { ready: false });
  bench.setService(SERVICE, [A]);
  const one = route();
  strictEqual(one.next(), undefined);
  bench.setPeer("10.0.0.1");
  bench.setService(SERVICE, [B], { set: 2 }); // A's set is not cleared away yet
  one.again();
  strictEqual(text(one.next()?.endpoint ?? SERVICE), text(B));
});

scene("not ready: once a peer, never in clear", ({ bench, route }) => {
  bench.setPeer("10.0.0.1", "web", { ready: false });
  bench.setService(SERVICE, [A]);
  const one = route();
  one.next();
  bench.removePeer("10.0.0.1");
  one.again();
  deepStrictEqual([one.next(), one.isAwaited], [undefined, false]);
  bench.maps.frontends.entries.clear();
  one.again();
  strictEqual(one.next(), undefined, "nor through kube-proxy");
  bench.setService(SERVICE, [A]);
  deepStrictEqual(all(route()), ["10.0.0.1:8080 plain"], "the next connection is another matter");
});

scene("not ready: nor is one in clear whose relay was away", ({ bench, route }) => {
  bench.setPeer("10.0.0.1");
  bench.setService(SERVICE, [A]);
  const one = route();
  ok(one.next());
  one.notReady();
  bench.removePeer("10.0.0.1");
  one.again();
  deepStrictEqual([one.next(), one.isAwaited], [undefined, false]);
});

scene("a set that is replaced while it is read is read again", ({ bench, route }) => {
  bench.setService(SERVICE, [A], { set: 1 });
  const one = route();
  bench.maps.backends.entries.clear();
  bench.setService(SERVICE, [B], { set: 2 });
  strictEqual(text(one.next()?.endpoint ?? SERVICE), text(B));
});

scene(
  "a Service that is gone is left to kube-proxy, unless an endpoint was tried",
  ({ bench, route }) => {
    bench.setService(SERVICE, [A]);
    const [untried, tried] = [route(), route()];
    tried.next();
    bench.maps.frontends.entries.clear();
    bench.maps.backends.entries.clear();
    deepStrictEqual([untried.next(), tried.next()], [
      { endpoint: SERVICE, peer: undefined },
      undefined,
    ]);
  },
);

scene(
  "a peer's own route: once, again when it was not ready, never when it is withdrawn",
  ({ bench, pod }) => {
    const { peers } = pod.worker;
    bench.setPeer("10.0.0.1");
    const find = () => peers.find(A.address);
    const route = new PeerRoute(peers, A, find() ?? never());
    strictEqual(route.next()?.peer?.name, "10.0.0.1");
    deepStrictEqual([route.next(), route.isAwaited], [undefined, false]);
    route.notReady();
    strictEqual(route.isAwaited, true);
    bench.setPeer("10.0.0.1", "other", { generation: 2 });
    route.again();
    strictEqual(route.next()?.peer?.generation, 2, "whoever has the address now");
    route.notReady();
    bench.removePeer("10.0.0.1");
    route.again();
    deepStrictEqual([route.next(), route.isAwaited], [undefined, false]);
  },
);

function never(): never {
  throw new Error("no peer");
}
