/**
 * The promise: who reads late gets the last bytes too, also of a tunnel that is to carry nothing
 * more.
 */
import assert from "node:assert/strict";
import { delay, until } from "./lab/delay.ts";
import type { Lab } from "./lab/lab.ts";
import type { Pod } from "./lab/pod.ts";
import type { LabProcess } from "./lab/process.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";

const PORT = 9000;
/**
 * So small that all buffers on the way together hold less than the largest answer, and one step is
 * under a read.
 */
const KERNEL_BUFFER = 65_536;
const SIZES = Array.from({ length: 48 }, (_, index) => 32_768 * (index + 1));

Deno.test("last bytes outlast the certificate that their tunnel was made with", async () => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  await lab.agent("node-b").stop();
  await lab.startAgent("node-b", { args: ["--cert-ttl", "24"] }); // renewed after some 12 s
  await lab.waitEnrolled(api);
  const { client, server } = await ask(web, api);
  const serial = async () => (await lab.agent("node-b").enrolment(api)).certificate?.serial;
  const first = await serial();
  server.kill("SIGUSR1");
  await until(async () => await serial() !== first, 20_000, () => "never renewed");
  await delay(200);
  await readAll(client, lab);
});

Deno.test("last bytes come when the tunnel's worker would rather be rid of it", async () => {
  await using lab = await openScene([
    ...WEB_AND_API,
    { name: "bulk", node: "node-a", annotation: "true" },
    { name: "sink", node: "node-b", annotation: "true" },
  ]);
  const [bulk, sink] = [lab.pod("bulk"), lab.pod("sink")];
  await sink.serve("sink", PORT);
  const { client, server } = await ask(lab.pod("web"), lab.pod("api"));
  const stream = `exec cat /dev/zero >/dev/tcp/${sink.ipv4}/${PORT}`;
  await using _bulk = bulk.spawn(["bash", "-c", stream]);
  await delay(500);
  server.kill("SIGUSR1");
  await untilAll(server, "answers");
  await delay(500);
  await readAll(client, lab);
});

/** Every answer is asked for, none is sent yet. */
async function ask(from: Pod, to: Pod): Promise<{ client: LabProcess; server: LabProcess }> {
  for (const pod of [from, to]) {
    for (const option of ["tcp_rmem", "tcp_wmem"]) {
      const value = `net.ipv4.${option}=4096 ${KERNEL_BUFFER} ${KERNEL_BUFFER}`;
      assert.equal((await pod.run(["sysctl", "-qw", value])).code, 0);
    }
  }
  const script = ["python3", "-B", "-S", `${import.meta.dirname}/lab/apps/late.py`];
  const server = to.spawn([...script, "serve", "--port", `${PORT}`]);
  await server.waitForEvent(({ event }) => event === "listening");
  const target = ["--host", to.ipv4 ?? "", "--port", `${PORT}`];
  const client = from.spawn([...script, "dial", ...target, "--sizes", SIZES.join(",")]);
  await untilAll(server, "asked");
  return { client, server };
}

async function untilAll(server: LabProcess, what: string): Promise<void> {
  const count = () => server.events.filter(({ event }) => event === what).length;
  await until(() => count() === SIZES.length, 20_000, () => `${what}: ${count()}`);
}

async function readAll(client: LabProcess, lab: Lab): Promise<void> {
  client.kill("SIGUSR1");
  const end = await client.waitForEvent(({ event }) => event === "end", 30_000);
  assert.deepEqual(end.cut, [], `${JSON.stringify(end.cut)}\n${lab.logTails()}`);
  assert.equal(end.answers, SIZES.length);
}
