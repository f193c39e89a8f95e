/** The promise: what one application sends is what the other receives, whatever the connection's shape. */
import assert from "node:assert/strict";
import { until } from "./lab/delay.ts";
import { openScene } from "./lab/scene.ts";

const ROUNDS = 20;

Deno.test("enrolled pods exchange every byte, in every shape of connection", async (t) => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  const hosts = [["IPv4", api.ipv4!], ["IPv6", api.ipv6!]] as const;
  const agent = lab.agent("node-a");
  let carried = 0;
  /** Each shape must have gone through the relay: else it would prove nothing. */
  const relayed = async (connections: number) => {
    carried += connections;
    const { traffic } = await agent.enrolment(web);
    assert.equal(traffic?.streams, carried, "connections that went through the relay");
  };

  const size = ["--bytes", "100000000"];
  const duplex = await api.serve("duplex", 9000, ...size, "--seed", "1");
  let connection = 0;
  for (const [family, host] of hosts) {
    await t.step(`100 MB in each direction at once, ${ROUNDS} times, over ${family}`, async () => {
      for (let round = 0; round < ROUNDS; round++) {
        const seed = ["--seed", `${round + 2}`];
        const { result } = await web.connect("duplex", host, 9000, ...size, ...seed);
        const number = ++connection;
        const server = await duplex.waitForEvent((event) => event.connection === number);
        assert.equal(result.received, 100_000_000);
        assert.equal(result.receivedSha256, server.sentSha256);
        assert.equal(result.sentSha256, server.receivedSha256);
        assert.notEqual(result.sentSha256, result.receivedSha256);
      }
      await relayed(ROUNDS);
    });
  }

  await api.serve("echo", 9001);
  for (const [family, host] of hosts) {
    await t.step(`500 connections at once, ${ROUNDS} times, over ${family}`, async () => {
      for (let round = 0; round < ROUNDS; round++) {
        const { result } = await web.connect("burst", host, 9001, "--connections", "500");
        assert.deepEqual([result.ok, result.errors], [500, {}]);
      }
      await relayed(ROUNDS * 500);
    });
  }

  const answer = ["--bytes", "10000000"];
  const halfclose = await api.serve("halfclose", 9002, ...answer, "--seed", "1");
  connection = 0;
  for (const [family, host] of hosts) {
    await t.step(`10 MB read after SHUT_WR, ${ROUNDS} times, over ${family}`, async () => {
      for (let round = 0; round < ROUNDS; round++) {
        const { result } = await web.connect("halfclose", host, 9002, "--bytes", "1000");
        const number = ++connection;
        const server = await halfclose.waitForEvent((event) => event.connection === number);
        assert.deepEqual([result.received, server.received], [10_000_000, 1000]);
        assert.equal(result.receivedSha256, server.sentSha256);
        assert.equal(result.sentSha256, server.receivedSha256);
      }
      await relayed(ROUNDS);
    });
  }

  await api.serve("banner", 9003, "--text", "220 ready");
  await t.step(`the server speaks first, ${ROUNDS} times in each family`, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      for (const [, host] of hosts) {
        const { result } = await web.connect("echo", host, 9003, "--banner");
        assert.deepEqual([result.banner, result.reply], ["220 ready", "hello"]);
      }
    }
    await relayed(2 * ROUNDS);
  });

  const sink = await api.serve("sink", 9004);
  await t.step(`connections without a byte, ${ROUNDS} times in each family`, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      for (const [, host] of hosts) await web.connect("empty", host, 9004);
    }
    const ended = () => sink.events.filter(({ event, count }) => event === "sink" && count === 0);
    await until(
      () => ended().length === 2 * ROUNDS,
      10_000,
      () => `the server saw ${ended().length} of them end; ${sink.stdout.tail(3)}`,
    );
    await relayed(2 * ROUNDS);
  });
});
