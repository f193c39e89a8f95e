/**
 * The promise: what one application sends is what the other receives, whatever the connection's
 * shape.
 */
import assert from "node:assert/strict";
import { until } from "./lab/delay.ts";
import { openScene } from "./lab/scene.ts";

const ROUNDS = 20;

Deno.test("enrolled pods exchange every byte, in every shape of connection", async (t) => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  /** The families take turns. */
  const host = (round: number) => round % 2 === 0 ? api.ipv4! : api.ipv6!;
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
  await t.step(`100 MB in each direction at once, ${ROUNDS} times`, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const seed = ["--seed", `${round + 2}`];
      const { result } = await web.connect("duplex", host(round), 9000, ...size, ...seed);
      const server = await duplex.waitForEvent((event) => event.connection === round + 1);
      assert.equal(result.received, 100_000_000);
      assert.equal(result.receivedSha256, server.sentSha256);
      assert.equal(result.sentSha256, server.receivedSha256);
      assert.notEqual(result.sentSha256, result.receivedSha256);
    }
    await relayed(ROUNDS);
  });

  await api.serve("echo", 9001);
  await t.step(`500 connections at once, ${ROUNDS} times`, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const { result } = await web.connect("burst", host(round), 9001, "--connections", "500");
      assert.deepEqual([result.ok, result.errors], [500, {}]);
    }
    await relayed(ROUNDS * 500);
  });

  const answer = ["--bytes", "10000000"];
  const halfclose = await api.serve("halfclose", 9002, ...answer, "--seed", "1");
  await t.step(`10 MB read after SHUT_WR, ${ROUNDS} times`, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const { result } = await web.connect("halfclose", host(round), 9002, "--bytes", "1000");
      const server = await halfclose.waitForEvent((event) => event.connection === round + 1);
      assert.deepEqual([result.received, server.received], [10_000_000, 1000]);
      assert.equal(result.receivedSha256, server.sentSha256);
      assert.equal(result.sentSha256, server.receivedSha256);
    }
    await relayed(ROUNDS);
  });

  await api.serve("banner", 9003, "--text", "220 ready");
  await t.step(`the server speaks first, ${ROUNDS} times`, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const { result } = await web.connect("echo", host(round), 9003, "--banner");
      assert.deepEqual([result.banner, result.reply], ["220 ready", "hello"]);
    }
    await relayed(ROUNDS);
  });

  const sink = await api.serve("sink", 9004);
  await t.step(`connections without a byte, ${ROUNDS} times`, async () => {
    for (let round = 0; round < ROUNDS; round++) await web.connect("empty", host(round), 9004);
    const ended = () => sink.events.filter(({ event, count }) => event === "sink" && count === 0);
    await until(
      () => ended().length === ROUNDS,
      10_000,
      () => `the server saw ${ended().length} of them end; ${sink.stdout.tail(3)}`,
    );
    await relayed(ROUNDS);
  });
});
