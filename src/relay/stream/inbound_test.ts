/** The inbound side's states, against a client that does what the test says. No root is needed. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { TUNNEL_PORT } from "../../constants.ts";
import { newCa } from "../../identity/new_ca.ts";
import { decodePem } from "../../identity/pem.ts";
import { encodeOrigin, encodeSocketKey } from "../../kernel/maps.ts";
import { EACCES, ECONNREFUSED, EPERM, ETIMEDOUT } from "../../native/errno.ts";
import { Certificate } from "../../native/certificate.ts";
import { Socket } from "../../native/socket.ts";
import { parsePolicy } from "../../policy.ts";
import { shopCredentials } from "../../standalone/authority_for_tests.ts";
import {
  addressOf,
  bytes,
  endpoint,
  identityOf,
  type ListeningApplication,
  RelayBench,
  type Script,
} from "../../standalone/relay_for_tests.ts";
import type { RelayPod } from "./pod.ts";
import { prove } from "./proof.ts";

const CLIENT_PORT = 40_000;

interface Scene {
  readonly bench: RelayBench;
  readonly pod: RelayPod;
  readonly client: RelayPod;
  /** Listens at 8080 of the pod. */
  readonly application: ListeningApplication;
  /** A tunnel whose handshake is done. */
  tunnel(): Promise<Script>;
  open(script: Script, port?: number, from?: string): void;
  /** A tunnel with an accepted stream. */
  stream(): Promise<Script>;
}

function scene(name: string, play: (scene: Scene) => Promise<void>): void {
  Deno.test(name, async () => {
    using bench = new RelayBench();
    const pod = await bench.pod(bench.worker(), "web");
    const client = await bench.pod(bench.worker(), "client");
    bench.setPeer(addressOf(client), "client");
    bench.serve(pod);
    const application = bench.application(endpoint(addressOf(pod), 8080));
    const tunnel = async () => {
      const script = bench.dial(client, addressOf(pod));
      await bench.until(() => script.last === "secured");
      return script;
    };
    const open = (script: Script, port = 8080, from = addressOf(client)) =>
      script.tunnel.sendOpen({
        port,
        client: endpoint(from, CLIENT_PORT),
        dialled: endpoint(addressOf(pod), port),
      });
    const stream = async () => {
      const script = await tunnel();
      open(script);
      await bench.until(() => script.last === "accept" && application.accept() !== undefined);
      return script;
    };
    await play({ bench, pod, client, application, tunnel, open, stream });
  });
}

scene(
  "a stream: the client's address is noted before the SYN, bytes go both ways, the tunnel stays",
  async (s) => {
    const { bench, pod, client, application } = s;
    const script = await s.stream();
    const server = application.accept();
    match(application.sources[0] ?? "", /^127\.128\./, "the relay's own address");
    const [key] = bench.maps.origins.entries.keys();
    const [host = "", port = ""] = application.sources[0]?.split(":") ?? [];
    strictEqual(key, encodeSocketKey(pod.description.cookie, endpoint(host, Number(port))).toHex());
    deepStrictEqual([...bench.maps.origins.entries.values()], [
      encodeOrigin(endpoint(addressOf(client), CLIENT_PORT), endpoint(addressOf(pod), 8080)),
    ]);
    script.sendData("question");
    server?.send("answer");
    await bench.until(() =>
      application.accept()?.received === "question" && script.last === "data answer"
    );
    script.send("END");
    await bench.until(() => application.accept()?.end === "fin");
    server?.finish();
    await bench.until(() => script.last === "end" && pod.counters.streamsOpen === 0);
    deepStrictEqual([pod.counters.tunnelsOpen, bench.maps.origins.entries.size], [1, 0]);
    const [report] = bench.streams;
    deepStrictEqual(
      [report?.direction, report?.bytesSent, report?.bytesReceived, report?.peerIdentity],
      ["inbound", 6, 8, identityOf("client")],
    );
    s.open(script);
    await bench.until(() => script.last === "accept", () => "another stream on it");
  },
);

scene(
  "the application's reset is RESET, and ends the tunnel",
  async ({ bench, application, pod, stream }) => {
    const script = await stream();
    application.accept()?.reset();
    await bench.until(() => script.isLost);
    ok(script.seen.includes("reset"));
    deepStrictEqual([pod.counters.tunnelsOpen, pod.connections.size], [0, 0]);
  },
);

scene(
  "an application that reads slowly gets everything and FIN, although it goes on itself",
  async (s) => {
    const { bench, application } = s;
    bench.hasSmallBuffers = true;
    const script = await s.stream();
    const payload = "x".repeat(16_000);
    // Two reads, END right behind the bytes; the application's socket takes them bit by bit.
    for (let count = 0; count < 6; count++) script.sendData(payload);
    script.send("END");
    await bench.until(() => application.accept()?.end === "fin");
    strictEqual(application.accept()?.received.length, 6 * payload.length);
    application.accept()?.send("goodbye");
    await bench.until(() => script.last === "data goodbye");
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

scene("the client's RESET, and a tunnel that breaks, reset the application", async (s) => {
  const { bench, application, pod } = s;
  const script = await s.stream();
  script.send("RESET");
  await bench.until(() => application.accept()?.end === "reset");
  const other = await s.stream();
  other.tunnel.close();
  await bench.until(() => application.accept()?.end === "reset");
  deepStrictEqual([pod.counters.tunnelsOpen, bench.maps.origins.entries.size], [0, 0]);
  deepStrictEqual(bench.refused, ["streaming_failed"]);
});

scene("nobody listens: REFUSE with the errno, and the tunnel can be used again", async (s) => {
  const { bench, pod } = s;
  const script = await s.tunnel();
  s.open(script, 9);
  await bench.until(() => script.last === `refuse ${ECONNREFUSED}`);
  match(bench.log, /the application at 127.*:9: ECONNREFUSED/);
  strictEqual(bench.maps.origins.entries.size, 0);
  s.open(script);
  await bench.until(() => script.last === "accept");
  strictEqual(pod.counters.tunnelsOpen, 1);
});

scene("the relay's own ports are refused", async (s) => {
  const { bench, pod } = s;
  const script = await s.tunnel();
  for (const port of [0, TUNNEL_PORT, pod.description.outboundPort]) {
    script.seen.length = 0;
    s.open(script, port);
    await bench.until(() => script.last === `refuse ${ECONNREFUSED}`, () => `port ${port}`);
  }
  strictEqual(pod.counters.streams, 0);
});

scene("the policy: REFUSE with EACCES; a dry run only says so", async (s) => {
  const { bench, pod } = s;
  pod.adjust({ policy: parsePolicy("shop/other"), strictEgress: false });
  const script = await s.tunnel();
  s.open(script);
  await bench.until(() => script.last === `refuse ${EACCES}`);
  match(bench.log, /does not allow spiffe.*sa\/client on port 8080 of spiffe.*sa\/web/);
  pod.adjust({ policy: parsePolicy("dry-run: shop/other"), strictEgress: false });
  s.open(script);
  await bench.until(() => script.last === "accept");
  deepStrictEqual(bench.refused, ["policy_denied", "policy_dry_run"], "what is logged");
  const { refused, wouldRefuse } = pod.report();
  deepStrictEqual([refused, wouldRefuse], [{ policy_denied: 1 }, 1], "what is counted");
});

scene("a policy that changes cuts a stream that it does not allow any more", async (s) => {
  const { bench, application, pod } = s;
  const script = await s.stream();
  pod.adjust({ policy: parsePolicy("shop/client"), strictEgress: false });
  bench.turn();
  ok(!script.isLost);
  pod.adjust({ policy: parsePolicy("shop/client:80"), strictEgress: false });
  await bench.until(() => script.isLost && application.accept()?.end === "reset");
});

scene(
  "an address that is not the certificate's, or not the identity's, is no client",
  async (s) => {
    const { bench, client } = s;
    s.open(await s.tunnel(), 8080, "127.9.9.9");
    await bench.until(() => bench.refused.length === 1);
    bench.setPeer(addressOf(client), "other");
    s.open(await s.tunnel());
    await bench.until(() => bench.refused.length === 2);
    deepStrictEqual(bench.refused, ["address_mismatch", "identity_mismatch"]);
  },
);

scene("unregistered: a client waits until the registry names it", async (s) => {
  const { bench, client, application } = s;
  bench.removePeer(addressOf(client));
  const script = await s.tunnel();
  s.open(script);
  bench.turn();
  bench.later(3_000);
  strictEqual(script.last, "secured", "no answer yet");
  strictEqual(application.accept(), undefined);
  bench.setPeer(addressOf(client), "client");
  bench.later(200);
  await bench.until(() => script.last === "accept");
});

scene("unregistered: refused after 5 seconds; the tunnel can be used again", async (s) => {
  const { bench, client, pod } = s;
  bench.removePeer(addressOf(client));
  const script = await s.tunnel();
  s.open(script);
  for (let waited = 0; waited < 5_200; waited += 200) {
    bench.turn();
    bench.later(200);
  }
  await bench.until(() => script.last === `refuse ${EPERM}`);
  deepStrictEqual(bench.refused, ["client_not_registered"]);
  match(bench.log, /the registry does not name the client 127/);
  bench.setPeer(addressOf(client), "client");
  s.open(script);
  await bench.until(() => script.last === "accept");
  strictEqual(pod.counters.tunnelsOpen, 1);
});

scene("a client that has left a moment ago is let in, and not for long", async (s) => {
  const { bench, client, pod } = s;
  const leaving = [{ address: addressOf(client), identity: identityOf("client") }];
  pod.worker.peers.leaving(leaving, pod.worker.now());
  bench.removePeer(addressOf(client));
  const script = await s.stream();
  strictEqual(pod.review(), false);
  bench.later(6_100);
  strictEqual(pod.review(), true);
  pod.review();
  await bench.until(() => script.isLost);
  deepStrictEqual(bench.refused, ["peer_revoked"]);
});

scene("unregistered: somebody else's by the time it is named", async (s) => {
  const { bench, client } = s;
  bench.removePeer(addressOf(client));
  const script = await s.tunnel();
  s.open(script);
  bench.turn();
  bench.setPeer(addressOf(client), "other");
  bench.later(200);
  await bench.until(() => script.isLost);
  deepStrictEqual(bench.refused, ["identity_mismatch"]);
});

scene("unregistered: a tunnel that breaks, and a pod that goes, leave nothing", async (s) => {
  const { bench, client, pod } = s;
  bench.removePeer(addressOf(client));
  const broken = await s.tunnel();
  s.open(broken);
  bench.turn();
  broken.tunnel.close();
  // As while an application is dialled, nothing is read: the answer finds nobody there.
  for (let waited = 0; waited < 5_400; waited += 200) {
    bench.turn();
    bench.later(200);
  }
  await bench.until(() => pod.connections.size === 0);
  s.open(await s.tunnel());
  bench.turn();
  for (const connection of pod.connections) connection.abort();
  strictEqual(pod.counters.tunnelsOpen, 0);
  bench.later(10_000);
});

scene("review: a client that has left the registry is cut when that is seen twice", async (s) => {
  const { bench, client, pod, application } = s;
  const script = await s.stream();
  strictEqual(pod.review(), false);
  bench.removePeer(addressOf(client));
  strictEqual(pod.review(), true);
  bench.turn();
  ok(!script.isLost, "it may be back at once");
  bench.setPeer(addressOf(client), "client");
  strictEqual(pod.review(), false);
  bench.removePeer(addressOf(client));
  pod.review();
  pod.review();
  await bench.until(() => script.isLost && application.accept()?.end === "reset");
  deepStrictEqual(bench.refused, ["peer_revoked"]);
  match(bench.log, /does not name the client 127.* any more/);
});

scene("review: an address that is another identity's by now is no client", async (s) => {
  const { bench, client, pod } = s;
  const script = await s.stream();
  bench.setPeer(addressOf(client), "other");
  pod.review();
  pod.review();
  await bench.until(() => script.isLost);
  match(bench.log, /sa\/other's now/);
});

scene(
  "review: an expired certificate ends a stream when the client's agent has no other",
  async (s) => {
    const { bench, client, pod } = s;
    const script = await s.stream();
    bench.wallOffset = 3_601_000;
    strictEqual(pod.review(), false, "its agent can serve it, so it has a better one");
    bench.setPeer(addressOf(client), "client", { ready: false });
    pod.review();
    pod.review();
    await bench.until(() => script.isLost);
    match(bench.log, /has expired, and the client's agent has no other/);
  },
);

scene("other roots: whose certificate leads to none of them is cut, at both ends", async (s) => {
  const { bench, client, pod } = s;
  const script = await s.stream();
  const { certificate } = await newCa("cluster.local");
  const other = decodePem(certificate, "CERTIFICATE");
  const mine = await shopCredentials(pod.description.addresses, "web");
  pod.renew({ ...mine, roots: [...mine.roots, ...other] });
  bench.turn();
  ok(!script.isLost, "the old root is there still");
  pod.renew({ ...mine, roots: other });
  await bench.until(() => script.isLost);
  deepStrictEqual(bench.refused, ["peer_revoked"]);
  match(bench.log, /its certificate is not trusted any more/);
  strictEqual(client.counters.tunnelsOpen, 0);
});

scene("denied: whoever the deny list names is cut, and not let in again", async (s) => {
  const { bench, client, pod } = s;
  const none = { serials: new Set(""), identities: new Set(""), addresses: new Set("") };
  const shown = await shopCredentials(client.description.addresses, "client");
  client.renew(shown);
  using leaf = Certificate.parse(new Uint8Array(shown.chain[0] ?? []));
  const script = await s.stream();
  for (
    const denied of [
      { ...none, identities: new Set([identityOf("client")]) },
      { ...none, addresses: new Set([addressOf(client)]) },
      { ...none, serials: new Set([leaf.serial()]) },
    ]
  ) {
    const open = script.isLost ? await s.stream() : script;
    pod.worker.denied = denied;
    pod.verifyAgain();
    await bench.until(() => open.isLost);
    const again = bench.dial(client, addressOf(pod));
    await bench.until(() => again.isLost);
    pod.worker.denied = none;
  }
  strictEqual(bench.refused.filter((reason) => reason === "peer_revoked").length, 3);
  strictEqual(bench.refused.filter((reason) => reason === "denied").length, 3);
});

scene("denied: a tunnel that waits for its first OPEN, or for the next, is ended", async (s) => {
  const { bench, pod } = s;
  const none = { serials: new Set(""), identities: new Set(""), addresses: new Set("") };
  const first = await s.tunnel();
  const next = await s.tunnel();
  s.open(next, 9);
  await bench.until(() => next.last === `refuse ${ECONNREFUSED}`);
  pod.worker.denied = { ...none, identities: new Set([identityOf("client")]) };
  pod.verifyAgain();
  await bench.until(() => first.isLost && next.isLost);
  deepStrictEqual([pod.counters.tunnelsOpen, pod.connections.size], [0, 0]);
});

scene("frames out of turn end the tunnel", async (s) => {
  const { bench } = s;
  for (const wrong of ["ACCEPT", "END", "DATA", "REFUSE"] as const) {
    const script = await s.tunnel();
    if (wrong === "DATA") script.sendData("x");
    else if (wrong === "REFUSE") script.tunnel.sendRefuse(1);
    else script.send(wrong);
    await bench.until(() => script.isLost, () => wrong);
  }
  const twice = await s.stream();
  s.open(twice);
  await bench.until(() => twice.isLost);
  deepStrictEqual(bench.refused, [...Array(4).fill("idle_failed"), "streaming_failed"]);
});

scene("frames before ACCEPT end the tunnel, and what is being dialled", async (s) => {
  const { bench } = s;
  for (const wrong of ["END", "DATA"] as const) {
    const script = await s.tunnel();
    s.open(script);
    if (wrong === "DATA") script.sendData("x");
    else script.send("END");
    await bench.until(() => script.isLost, () => wrong);
  }
  strictEqual(bench.maps.origins.entries.size, 0);
  strictEqual(s.pod.counters.streamsOpen, 0);
});

scene("dialling: what comes meanwhile is left unread until the application is there", async (s) => {
  const { bench, application } = s;
  bench.dropsLoopback = true;
  const script = await s.tunnel();
  s.open(script);
  for (let count = 0; count < 3; count++) bench.turn();
  script.sendData("early");
  for (let count = 0; count < 3; count++) bench.turn();
  ok(!script.isLost);
  bench.later(100);
  await bench.until(() => application.accept()?.received === "early");
});

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
  "dialling: an application that does not answer is given up after 10 s; the client's end is noticed",
  async (s) => {
    const { bench, pod } = s;
    const full = bench.full(endpoint(addressOf(pod), 7000));
    const script = await s.tunnel();
    s.open(script, 7000);
    await bench.until(() => bench.maps.origins.entries.size === 1);
    bench.later(100); // from the pod's own address then
    strictEqual(bench.maps.origins.entries.size, 1);
    bench.later(10_000);
    await bench.until(() => script.last === `refuse ${ETIMEDOUT}`);
    s.open(script, 7000);
    await bench.until(() => bench.maps.origins.entries.size === 1);
    script.tunnel.close();
    full[Symbol.dispose]();
    bench.later(10_000);
    await bench.until(() => bench.maps.origins.entries.size === 0);
  },
);

scene(
  "a port that nobody answers at from loopback is dialled from the pod's address, and remembered",
  async (s) => {
    const { bench, pod, application } = s;
    bench.dropsLoopback = true;
    const script = await s.tunnel();
    s.open(script);
    await bench.until(() => pod.connections.size === 1);
    bench.turn();
    ok(!script.seen.includes("accept"));
    bench.later(100);
    await bench.until(() => script.last === "accept" && application.accept() !== undefined);
    match(application.sources.at(-1) ?? "", new RegExp(`^${addressOf(pod)}:`));
    strictEqual(bench.maps.origins.entries.size, 1, "the client's address is noted all the same");
    const next = await s.tunnel();
    s.open(next);
    await bench.until(() => next.last === "accept", () => "without waiting");
    bench.dropsLoopback = false;
    bench.later(60_000);
    const later = await s.tunnel();
    s.open(later);
    await bench.until(() => later.last === "accept");
    application.accept();
    match(application.sources.at(-1) ?? "", /^127\.128\./, "it is looked at again after a minute");
  },
);

scene("new credentials: a tunnel that waits is ended, one with a stream after it", async (s) => {
  const { bench, pod } = s;
  const idle = await s.tunnel();
  s.open(idle, 9);
  await bench.until(() => idle.last.startsWith("refuse"));
  const busy = await s.stream();
  pod.renew(await shopCredentials([addressOf(pod)], "web"));
  await bench.until(() => idle.isLost);
  ok(!busy.isLost);
  busy.send("END");
  s.application.accept()?.finish();
  await bench.until(() => busy.isLost);
  ok(busy.seen.includes("end"));
});

scene(
  "expired by the wall clock: a tunnel that waits takes no other stream, and no handshake succeeds",
  async (s) => {
    const { bench, pod } = s;
    const script = await s.tunnel();
    s.open(script, 9);
    await bench.until(() => script.last.startsWith("refuse"));
    bench.wallOffset = 3_601_000;
    s.open(script);
    await bench.until(() => script.isLost);
    const next = bench.dial(s.client, addressOf(pod));
    await bench.until(() => next.isLost);
    deepStrictEqual(bench.refused.slice(1), ["certificate_expired", "handshake_failed"]);
    strictEqual(pod.counters.streams, 0);
  },
);

scene("evicted, aborted: whatever the state", async (s) => {
  const { bench, pod } = s;
  const script = await s.stream();
  const idle = await s.tunnel();
  for (const connection of [...pod.connections]) connection.abort();
  await bench.until(() => script.isLost && idle.isLost && s.application.accept()?.end === "reset");
  deepStrictEqual([pod.counters.tunnelsOpen, pod.counters.streamsOpen], [0, 0]);
});

// ---- proofs ----

scene(
  "a proof: a handshake of the pod with itself, and nothing is counted, logged or left",
  async (s) => {
    const { bench, pod } = s;
    const results: unknown[] = [];
    prove(pod, pod.description.addresses[0] ?? "", (result) => results.push(result));
    await bench.until(() => results.length === 1);
    deepStrictEqual(results, [{
      ok: true,
      notAfter: (results[0] as { notAfter: number }).notAfter,
      milliseconds: 0,
    }]);
    const { notAfter } = results[0] as { notAfter: number };
    ok(Math.abs(notAfter - pod.notAfter) < 2_000, `${notAfter - pod.notAfter}`);
    await bench.until(() => pod.connections.size === 0);
    const { handshakes, streams, tunnelsOpen } = pod.counters;
    deepStrictEqual([handshakes, streams, tunnelsOpen, bench.refused], [0, 0, 0, []]);
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

scene("a proof is not refused because the users' connections are too many", async (s) => {
  const { bench } = s;
  const pod = await bench.pod(bench.worker({ maxConnections: 0 }), "full");
  bench.serve(pod);
  const results: { ok: boolean }[] = [];
  prove(pod, pod.description.addresses[0] ?? "", (result) => results.push(result));
  await bench.until(() => results.length === 1);
  deepStrictEqual([results[0]?.ok, bench.refused], [true, []]);
});

for (
  const [what, spoil, reason] of [
    ["nobody listens", (_: Scene, pod: RelayPod) => void pod, /ECONNREFUSED/],
    [
      "a process of the pod has the port, and says nothing",
      ({ bench }: Scene, pod: RelayPod) => {
        bench.application(endpoint(addressOf(pod), TUNNEL_PORT));
      },
      /no handshake within 5 s/,
    ],
    [
      "the registry names another identity for the address",
      ({ bench }: Scene, pod: RelayPod) => {
        bench.serve(pod);
        bench.setPeer(addressOf(pod), "other");
      },
      /ended the tunnel/,
    ],
    [
      "the certificate has expired",
      ({ bench }: Scene, pod: RelayPod) => {
        bench.serve(pod);
        bench.wallOffset = 3_601_000;
      },
      /own certificate has expired/,
    ],
    [
      "another identity answers",
      async ({ bench }: Scene, pod: RelayPod) => {
        await bench.script(bench.worker(), "stranger", addressOf(pod));
      },
      /another identity/,
    ],
  ] as const
) {
  scene(`a proof fails, with the reason, when ${what}`, async (s) => {
    const { bench } = s;
    const pod = await bench.pod(bench.worker(), "alone");
    await spoil(s, pod);
    const results: { ok: boolean; reason?: string }[] = [];
    prove(pod, pod.description.addresses[0] ?? "", (result) => results.push(result));
    await bench.until(() => {
      bench.later(50);
      return results.length > 0;
    });
    bench.later(10_000);
    strictEqual(results.length, 1, "told once");
    match(results[0]?.reason ?? "", reason);
    deepStrictEqual([pod.counters.tunnelsOpen, pod.counters.handshakes], [0, 0]);
  });
}
