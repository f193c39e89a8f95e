/**
 * Whom the inbound side lets in, and for how long: a client is who its certificate and the registry
 * say.
 */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { TUNNEL_PORT } from "../../constants.ts";
import { newCa } from "../../identity/new_ca.ts";
import { decodePem } from "../../identity/pem.ts";
import { ECONNREFUSED, EPERM } from "../../native/errno.ts";
import { Certificate } from "../../native/certificate.ts";
import { parsePolicy } from "../../policy.ts";
import { shopCredentials } from "../../standalone/authority_for_tests.ts";
import { type Scene, scene } from "../../standalone/inbound_scene_for_tests.ts";
import { endpoint } from "../../standalone/applications_for_tests.ts";
import { addressOf, identityOf } from "../../standalone/relay_for_tests.ts";
import type { RelayPod } from "./pod.ts";
import { prove } from "./proof.ts";

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
    deepStrictEqual(Object.keys(bench.shown), [addressOf(client)], "what is in its certificate");
  },
);

scene(
  "an address of another family than the tunnel is no client, although it is his",
  async (s) => {
    const { bench, client, pod } = s;
    client.renew(await shopCredentials([addressOf(client), "fd00::1"], "client"));
    bench.setPeer("fd00::1", "client");
    const script = await s.tunnel();
    s.open(script, 8080, "fd00::1");
    await bench.until(() => script.isLost);
    match(bench.log, /the client's address is of another family than the tunnel/);
    deepStrictEqual([bench.refused, pod.counters.tunnelsOpen], [["idle_failed"], 0]);
    await s.stream(); // his own of this family is as good as before
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
  deepStrictEqual(Object.keys(bench.shown), [addressOf(client)]);
});

scene("unregistered: what has come behind OPEN is read when that is refused", async (s) => {
  const { bench, client } = s;
  bench.removePeer(addressOf(client));
  const script = await s.tunnel();
  s.open(script);
  bench.turn();
  script.sendData("before ACCEPT");
  for (let waited = 0; waited < 5_200; waited += 200) {
    bench.turn();
    bench.later(200);
  }
  await bench.until(() => script.isLost);
  ok(script.seen.includes(`refuse ${EPERM}`));
  deepStrictEqual(bench.refused, ["client_not_registered", "idle_failed"]);
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

scene("dialling: who has left, or is allowed no more, is not let in after all", async (s) => {
  const { bench, client, pod } = s;
  bench.full(endpoint(addressOf(pod), 7000));
  const dialling = async () => {
    const script = await s.tunnel();
    s.open(script, 7000);
    await bench.until(() => bench.maps.origins.entries.size === 1);
    return script;
  };
  const gone = await dialling();
  bench.removePeer(addressOf(client));
  strictEqual(pod.review(), true);
  pod.review();
  await bench.until(() => gone.isLost);
  bench.setPeer(addressOf(client), "client");
  const denied = await dialling();
  pod.adjust({ policy: parsePolicy("shop/client:8080"), strictEgress: false });
  await bench.until(() => denied.isLost);
  deepStrictEqual(bench.refused, ["peer_revoked", "policy_denied"]);
  deepStrictEqual([bench.maps.origins.entries.size, pod.counters.tunnelsOpen], [0, 0]);
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
  const none = { serials: new Set(""), identities: new Set(""), pods: new Set("") };
  const shown = await shopCredentials(client.description.addresses, "client");
  client.renew(shown);
  using leaf = Certificate.parse(new Uint8Array(shown.chain[0] ?? []));
  const script = await s.stream();
  for (
    const denied of [
      { ...none, identities: new Set([identityOf("client")]) },
      { ...none, pods: new Set([client.description.uid]) },
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
  const none = { serials: new Set(""), identities: new Set(""), pods: new Set("") };
  const first = await s.tunnel();
  const next = await s.tunnel();
  s.open(next, 9);
  await bench.until(() => next.last === `refuse ${ECONNREFUSED}`);
  pod.worker.denied = { ...none, identities: new Set([identityOf("client")]) };
  pod.verifyAgain();
  await bench.until(() => first.isLost && next.isLost);
  deepStrictEqual([pod.counters.tunnelsOpen, pod.connections.size], [0, 0]);
});

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

scene("a proof is not refused because the users' connections are too many", async (s) => {
  const { bench } = s;
  const pod = await bench.pod(bench.worker({ maxConnections: 0 }), "full");
  bench.serve(pod);
  const results: { ok: boolean }[] = [];
  prove(pod, pod.description.addresses[0] ?? "", (result) => results.push(result));
  await bench.until(() => results.length === 1);
  deepStrictEqual([results[0]?.ok, bench.refused], [true, []]);
});

scene("a proof that was answered, and stays, ends after 5 s", async (s) => {
  const { bench, pod } = s;
  const script = bench.dial(pod, addressOf(pod));
  await bench.until(() => script.last === "secured");
  const own = endpoint(addressOf(pod), 0);
  script.tunnel.sendOpen({ port: 0, client: own, dialled: own });
  await bench.until(() => script.last === `refuse ${ECONNREFUSED}`);
  bench.later(4_999);
  strictEqual(pod.fromItself, 1);
  bench.later(1);
  await bench.until(() => script.isLost);
  deepStrictEqual([pod.fromItself, bench.refused], [0, []]);
});

scene("of what a pod connects to itself, no more than a few are taken for proofs", async (s) => {
  const { bench } = s;
  const pod = await bench.pod(bench.worker({ maxConnections: 0 }), "full");
  bench.serve(pod);
  const dial = () => bench.dial(pod, pod.description.addresses[0] ?? "");
  const first = Array.from({ length: 4 }, dial);
  await bench.until(() => pod.fromItself === 4);
  const one = dial();
  await bench.until(() => one.isLost);
  deepStrictEqual([first.filter(({ isLost }) => isLost).length, bench.refused.length], [0, 1]);
  first[0]?.tunnel.close();
  await bench.until(() => pod.fromItself === 3);
  dial();
  await bench.until(() => pod.fromItself === 4);
  strictEqual(bench.refused.length, 1);
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
