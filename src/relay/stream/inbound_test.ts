/** The inbound side's states, against a client that does what the test says. No root is needed. */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { TUNNEL_PORT } from "../../constants.ts";
import { encodeOrigin, encodeSocketKey } from "../../kernel/maps.ts";
import { EACCES, ECONNREFUSED, EMFILE, ETIMEDOUT, SystemError } from "../../native/errno.ts";
import { parsePolicy } from "../../policy.ts";
import { CLIENT_PORT, scene } from "../../standalone/inbound_scene_for_tests.ts";
import { endpoint } from "../../standalone/applications_for_tests.ts";
import { addressOf, identityOf } from "../../standalone/relay_for_tests.ts";

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

scene("an application that cannot be dialled at all: REFUSE with the errno", async (s) => {
  const { bench, pod } = s;
  const { socketFor } = pod;
  pod.socketFor = () => {
    throw new SystemError("socket", EMFILE, "");
  };
  const script = await s.tunnel();
  s.open(script);
  await bench.until(() => script.last === `refuse ${EMFILE}`);
  deepStrictEqual(bench.refused, ["no_resources"]);
  match(bench.log, /the agent cannot connect the application: socket failed with EMFILE/);
  pod.socketFor = socketFor;
  s.open(script);
  await bench.until(() => script.last === "accept");
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

scene("evicted, aborted: whatever the state", async (s) => {
  const { bench, pod } = s;
  const script = await s.stream();
  const idle = await s.tunnel();
  for (const connection of [...pod.connections]) connection.abort();
  await bench.until(() => script.isLost && idle.isLost && s.application.accept()?.end === "reset");
  deepStrictEqual([pod.counters.tunnelsOpen, pod.counters.streamsOpen], [0, 0]);
});
