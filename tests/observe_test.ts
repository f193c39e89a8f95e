/**
 * The promise: an operator can see what is encrypted, how, between whom, and what has ended and
 * why.
 */
import assert from "node:assert/strict";
import type { LogLine } from "./lab/agent.ts";
import { until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";
import { WEB_AND_API } from "./lab/scene.ts";

const PORT = 9000;

Deno.test("connections, certificates and ended streams are told", async (t) => {
  await using lab = await Lab.open();
  const [web, api] = await lab.addPods([...WEB_AND_API]);
  assert.ok(web && api);
  await lab.startAgent("node-a");
  await lab.startAgent("node-b", { args: ["--access-log", "10"] });
  await Promise.all([web, api].map((pod) => lab.waitEnrolled(pod)));
  const identity = (name: string) => `spiffe://cluster.local/ns/default/sa/${name}`;
  await api.serve("hello", PORT);
  await api.serve("reset", PORT + 1, "--at", "byte");
  const lines = (node: string): LogLine[] =>
    lab.agent(node).log.filter(({ logger }) => logger === "kube-gateway.access");

  await t.step(
    "conns: both ends of a live stream, with what its tunnel has agreed on",
    async () => {
      await using client = web.startClient("send", api.ipv4!, PORT, "--every", "20");
      await client.waitForEvent(({ number }) => Number(number) > 3);
      const tls = { version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256" };
      for (
        const [node, pod, direction, peer] of [
          ["node-a", web, "outbound", api],
          ["node-b", api, "inbound", web],
        ] as const
      ) {
        const { stdout, code } = await lab.agent(node).command("conns", "--json");
        assert.equal(code, 0);
        const { count, connections: [one] } = JSON.parse(stdout);
        assert.equal(count, 1);
        assert.deepEqual(
          [
            one.pod,
            one.direction,
            one.state,
            one.identity,
            one.peerPod,
            one.peerIdentity,
            one.peer,
          ],
          [
            ...[pod.key, direction, "streaming", identity(pod.name)],
            ...[peer.key, identity(peer.name), peer.ipv4],
          ],
        );
        assert.equal(one.destination, `${api.ipv4}:${PORT}`);
        assert.equal(one.client.split(":")[0], web.ipv4);
        assert.deepEqual({ version: one.tls.version, cipher: one.tls.cipher }, tls);
        assert.match(one.tls.group, /^X25519/);
        assert.equal(one.kernelTls, false);
      }
      const table = await lab.agent("node-a").command("conns");
      assert.match(
        table.stdout,
        /^default\/web +outbound +default\/api .*TLSv1\.3 TLS_AES_128_GCM/m,
      );
    },
  );

  await t.step("certs: identity, addresses and dates", async () => {
    const { stdout } = await lab.agent("node-a").command("certs", "--json");
    const [one] = JSON.parse(stdout);
    assert.deepEqual([one.pod, one.identity, one.addresses], [
      web.key,
      identity("web"),
      web.addresses,
    ]);
    assert.ok(Date.parse(one.notAfter) > Date.now());
    const table = await lab.agent("node-a").command("certs");
    assert.match(table.stdout, /^default\/web +spiffe:.* 23h\d+m$/m);
  });

  await t.step(
    "the access log: one line a stream, at its end, with all that is known",
    async () => {
      const from = lines("node-a").length;
      await web.connect("send", api.ipv4!, PORT, "--count", "3", "--every", "1");
      await until(
        () => Promise.resolve(lines("node-a").length === from + 1),
        5_000,
        () => "no line",
      );
      const line = lines("node-a").at(-1);
      assert.deepEqual(
        ["direction", "pod", "identity", "peerPod", "peerIdentity", "dialled", "ended"].map((key) =>
          line?.[key]
        ),
        [
          ...["outbound", web.key, identity("web"), api.key, identity("api")],
          ...[`${api.ipv4}:${PORT}`, "by both sides"],
        ],
      );
      assert.equal(line?.bytesSent, "hello 1\nhello 2\nhello 3\n".length);
      assert.equal(line?.bytesReceived, "got hello 1\ngot hello 2\ngot hello 3\n".length);
      assert.match(String(line?.tls), /^TLSv1\.3 TLS_AES_128_GCM_SHA256 X25519/);
      assert.ok(Number(line?.milliseconds) > 0);
    },
  );

  await t.step("a stream that failed is a warning with the reason, on both sides", async () => {
    await web.connect("expect-reset", api.ipv4!, PORT + 1, "--text", "x");
    for (const node of ["node-a", "node-b"]) {
      const failed = () => lines(node).filter(({ level }) => level === "WARN");
      await until(() => Promise.resolve(failed().length > 0), 5_000, () => `${node} says nothing`);
      assert.match(String(failed().at(-1)?.ended), /reset|ECONNRESET/);
    }
  });

  await t.step("a stream that was refused names the peer, too", async () => {
    await web.connect("expect-reset", api.ipv4!, PORT + 9);
    const refused = () =>
      lines("node-a").find(({ dialled }) => dialled === `${api.ipv4}:${PORT + 9}`);
    await until(() => Promise.resolve(refused() !== undefined), 5_000, () => "no line");
    assert.deepEqual([refused()?.peerPod, refused()?.peerIdentity], [api.key, identity("api")]);
    assert.match(String(refused()?.ended), /refused the connection: ECONNREFUSED/);
  });

  await t.step("one in ten is logged where one in ten is asked for", async () => {
    const logged = () => lines("node-b").filter(({ level }) => level === "INFO").length;
    const before = logged();
    const all = lines("node-a").length;
    await api.serve("echo", PORT + 2);
    await web.connect("many", api.ipv4!, PORT + 2, "--connections", "200", "--concurrency", "4");
    await until(
      () => Promise.resolve(lines("node-a").length >= all + 200),
      5_000,
      () => "few lines",
    );
    // Each of the two workers counts for itself.
    const sampled = () => logged() - before;
    await until(() => Promise.resolve(sampled() >= 18), 5_000, () => `${sampled()} of 200`);
    assert.ok(sampled() <= 22, `${sampled()} of 200`);
  });
});
