/** The promise: who reads slowly makes its sender wait, and costs nobody else memory or time. */
import assert from "node:assert/strict";
import { until } from "./lab/delay.ts";
import { assertAtMostDoubles, Pinger } from "./lab/pace.ts";
import type { AppEvent, LabProcess } from "./lab/process.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";
import { cpuSeconds, residentKilobytes } from "./lab/usage.ts";

const CONNECTIONS = 100;
/** What a reader takes in a second. */
const RATE = 10_000;
const PORT = 9000;
/** Of an agent's memory. */
const KILOBYTES_A_CONNECTION = 512;

Deno.test("100 fast senders to slow readers wait, and cost neither memory nor other pods' time", async () => {
  await using lab = await openScene([
    ...WEB_AND_API,
    { name: "fast", node: "node-a", annotation: "true" },
    { name: "slow", node: "node-b", annotation: "true" },
  ]);
  const [web, api, fast, slow] = ["web", "api", "fast", "slow"].map((name) => lab.pod(name));
  assert(web?.ipv4 && api?.ipv4 && fast && slow?.ipv4);
  const agents = lab.nodes.map(({ name }) => lab.agent(name));
  // What the kernel buffers is not the subject, and by default more than 10 MB of each connection.
  for (const pod of [fast, slow]) await pod.run(["sysctl", "-qw", ...SMALL_BUFFERS]);
  await api.serve("echo", PORT);
  const pinger = new Pinger(web, api.ipv4, PORT);
  const before = await pinger.pace();
  const atRest = agents.map(({ pid }) => residentKilobytes(pid));
  const most = [...atRest];
  const sampling = setInterval(() => {
    for (const [index, { pid }] of agents.entries()) {
      most[index] = Math.max(most[index]!, residentKilobytes(pid));
    }
  }, 100);
  using _ = { [Symbol.dispose]: () => clearInterval(sampling) };

  const crowd = ["python3", "-B", "-S", `${import.meta.dirname}/lab/apps/crowd.py`];
  const reader = slow.spawn([...crowd, "read", "--port", `${PORT}`, "--rate", `${RATE}`]);
  await reader.waitForEvent(({ event }) => event === "listening");
  const to = ["--host", slow.ipv4, "--port", `${PORT}`, "--connections", `${CONNECTIONS}`];
  const sender = fast.spawn([...crowd, "send", ...to]);
  await until(
    () => {
      const [earlier, latest] = seconds(sender).slice(-2);
      return latest?.connections === CONNECTIONS && earlier?.bytes === latest.bytes;
    },
    30_000,
    () => `the senders never wait: ${sender.stdout.tail()}${sender.stderr.tail()}`,
  );

  const [began, used] = [performance.now(), agents.map(({ pid }) => cpuSeconds(pid))];
  const read = seconds(reader).length;
  assertAtMostDoubles(before, await pinger.pace());
  const passed = (performance.now() - began) / 1000;
  const busy = agents.map(({ pid }, index) => (cpuSeconds(pid) - used[index]!) / passed);
  const growth = most.map((memory, index) => (memory - atRest[index]!) / CONNECTIONS);
  console.log(`KiB a connection: ${growth}; of a core: ${busy.map((share) => share.toFixed(2))}`);
  for (const kilobytes of growth) assert.ok(kilobytes <= KILOBYTES_A_CONNECTION, `${growth} KiB`);
  // The small requests are in it too.
  for (const share of busy) assert.ok(share < 0.4, `${busy} of a core`);

  const [first, latest] = [seconds(reader)[read - 1], seconds(reader).at(-1)];
  const rate = (Number(latest?.bytes) - Number(first?.bytes)) / (seconds(reader).length - read);
  assert.ok(rate > RATE * CONNECTIONS / 2, `the readers get ${rate} bytes a second`);
  for (const side of [sender, reader]) assert.equal(seconds(side).at(-1)?.broken, 0);
});

const SMALL_BUFFERS = ["rmem=4096 131072 1048576", "wmem=4096 16384 1048576"]
  .map((setting) => `net.ipv4.tcp_${setting}`);

/** What one side of the crowd has told so far, second by second. */
function seconds({ events }: LabProcess): AppEvent[] {
  return events.filter(({ event }) => event === "second");
}
