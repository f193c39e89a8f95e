/**
 * The promise: who only pauses is waited for, however long, as TCP does it; who has vanished is
 * noticed.
 */
import assert from "node:assert/strict";
import { delay, until } from "./lab/delay.ts";
import type { Lab } from "./lab/lab.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";

const PORT = 9000;
/** More than all buffers on the way hold: six, and the kernel lets a receiver's grow to 32 MB. */
const BYTES = 250_000_000;
/** Longer than anything that the relay gives up for (src/relay/tunnel/tunnel.ts). */
const PAUSE_SECONDS = 70;
const NOTICED_MILLISECONDS = 75_000;

Deno.test("both sides of a connection rest for more than a minute; a peer vanishes under way", async () => {
  await using lab = await openScene([
    ...WEB_AND_API,
    { name: "talker", node: "node-a", annotation: "true" },
    { name: "gone", node: "node-b", annotation: "true" },
  ]);
  await Promise.all([rest(lab), vanish(lab)]);
});

/** Both full windows are closed meanwhile. */
async function rest(lab: Lab): Promise<void> {
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  const script = ["python3", "-B", "-S", `${import.meta.dirname}/lab/apps/pause.py`];
  const options = ["--port", `${PORT}`, "--bytes", `${BYTES}`, "--seconds", `${PAUSE_SECONDS}`];
  const server = api.spawn([...script, "serve", ...options]);
  await server.waitForEvent(({ event }) => event === "listening");
  const client = web.spawn([...script, "dial", "--host", api.ipv4!, ...options]);
  for (const side of [client, server]) {
    const limit = PAUSE_SECONDS * 1000 + 40_000;
    const { sent } = await side.waitForEvent(({ event }) => event === "rests", limit);
    assert.ok(Number(sent) < BYTES, "everything was sent: nobody had to wait");
    const { bytes } = await side.waitForEvent(({ event }) => event === "end", 40_000);
    assert.equal(bytes, BYTES, `${JSON.stringify(side.events)}\n${lab.logTails()}`);
  }
}

/** What a pod that is gone sends back is lost, as if its node had lost power. */
async function vanish(lab: Lab): Promise<void> {
  const [talker, gone] = [lab.pod("talker"), lab.pod("gone")];
  await gone.serve("hello", PORT);
  const every = ["--every", "100", "--timeout", "120"];
  const talk = talker.startClient("send", gone.ipv4!, PORT, ...every);
  await until(() => talk.events.length > 5, 10_000, () => "no conversation");
  const { code } = await gone.run(["ip", "route", "change", "blackhole", "default"]);
  assert.equal(code, 0);
  const began = performance.now();
  const failed = () => talk.events.find(({ event }) => event === "failed");
  await until(() => failed() !== undefined, NOTICED_MILLISECONDS, () => "nobody notices");
  const milliseconds = performance.now() - began;
  assert.equal(failed()?.errno, "ECONNRESET");
  assert.ok(milliseconds > 20_000, `given up after ${milliseconds} ms`);
  await delay(100);
  const line = lab.agent("node-a").log.find(({ message }) => /has vanished/.test(`${message}`));
  assert.equal(line?.pod, talker.key);
}
