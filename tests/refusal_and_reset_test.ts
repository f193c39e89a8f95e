/**
 * The promise: a connection that fails on one side fails on the other, as a reset and never as a
 * clean end.
 */
import assert from "node:assert/strict";
import { OUTBOUND_PORT } from "../src/constants.ts";
import { until } from "./lab/delay.ts";
import type { TcpPacket } from "./lab/pcap.ts";
import { openScene } from "./lab/scene.ts";

const ENDLESS = ["--bytes", "100000000000"];

Deno.test("what fails on one side is a reset on the other, never a clean end", async (t) => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  /** How a client's connection to `port` ends, in both families. */
  const ends = async (port: number, ...more: string[]) => {
    const all = api.addresses.map((host) => web.connect("expect-reset", host, port, ...more));
    return (await Promise.all(all)).map((
      { result },
    ) => [result.end, result.errno, result.received]);
  };
  const RESET = [["reset", "ECONNRESET", 0], ["reset", "ECONNRESET", 0]];

  await t.step("nothing listens on the port", async () => {
    assert.deepEqual(await ends(1), RESET);
    assert.deepEqual(await ends(1, "--text", "said before the answer"), RESET);
  });

  await t.step("the server resets as soon as it has accepted", async () => {
    await api.serve("reset", 9000, "--at", "accept");
    assert.deepEqual(await ends(9000), RESET);
  });

  await t.step("the server resets after a byte", async () => {
    await api.serve("reset", 9001, "--at", "byte");
    assert.deepEqual(await ends(9001, "--text", "x"), RESET);
  });

  await t.step("the server closes cleanly: the client sees just that", async () => {
    await api.serve("close", 9002);
    assert.deepEqual(await ends(9002), [["eof", null, 0], ["eof", null, 0]]);
  });

  await t.step("the client resets in the middle of what it sends", async () => {
    const sink = await api.serve("sink", 9003);
    for (const host of api.addresses) await web.connect("reset", host, 9003, "--bytes", "3000000");
    for (const connection of [1, 2]) {
      const seen = await sink.waitForEvent((event) => event.connection === connection);
      assert.deepEqual([seen.event, seen.errno], ["error", "ECONNRESET"]);
    }
  });

  await t.step("a connection to the outbound listener that was not redirected", async () => {
    const agent = lab.agent("node-a");
    for (const host of ["127.0.0.1", "::1"]) {
      const from = agent.log.length;
      const { result } = await web.connect("expect-reset", host, OUTBOUND_PORT, "--text", "x");
      assert.deepEqual([result.end, result.received], ["reset", 0]);
      await agent.waitForLog(({ reason }) => reason === "no_flow", 10_000, from);
    }
  });

  for (const [side, killed] of [["inbound", "node-b"], ["outbound", "node-a"]] as const) {
    await t.step(`the ${side} agent is killed in mid-transfer`, async () => {
      const port = killed === "node-b" ? 9004 : 9005;
      const server = await api.serve("duplex", port, ...ENDLESS);
      const idle = await api.serve("hello", port + 10);
      const client = web.startClient("duplex", api.ipv4!, port, ...ENDLESS);
      const quiet = web.startClient("expect-reset", api.ipv4!, port + 10, "--text", "hello\n");
      await idle.waitForEvent(({ event }) => event === "message");
      let passed = 0;
      const count = ({ payload }: TcpPacket) => void (passed += payload.length);
      await using _watch = await lab.watchLink("node-a", count);
      await until(() => passed > 10_000_000, 10_000, () => `only ${passed} bytes have passed`);
      await lab.agent(killed).kill();
      const isReset = ({ errno }: { errno?: unknown }) =>
        errno === "ECONNRESET" || errno === "EPIPE";
      assert.ok(isReset(await client.waitForEvent(({ event }) => event === "error")), "the client");
      assert.ok(isReset(await server.waitForEvent(({ event }) => event === "error")), "the server");
      assert.equal((await quiet.waitForEvent(() => true)).end, "reset", "an idle client");
      const end = await idle.waitForEvent(({ event }) => event === "end" || event === "error");
      assert.equal(end.errno, "ECONNRESET", `an idle server: ${JSON.stringify(end)}`);
      await lab.startAgent(killed);
      await Promise.all([lab.waitEnrolled(web), lab.waitEnrolled(api)]);
    });
  }
});
