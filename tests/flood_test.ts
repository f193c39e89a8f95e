/**
 * The promise: whoever begins a connection, a handshake or an OPEN and does not finish it is put up
 * with for as long as the deadlines say, costs nothing afterwards, and other pods' requests hardly
 * anything meanwhile.
 */
import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { openFrame } from "./lab/hostile.ts";
import type { Lab } from "./lab/lab.ts";
import { assertAtMostDoubles, Pinger } from "./lab/pace.ts";
import { Authority } from "./lab/pki.ts";
import type { AppEvent, LabProcess } from "./lab/process.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";
import { isBack, quiet, residentKilobytes, usage } from "./lab/usage.ts";

const PORT = 9000;
/** src/relay/loop/unopened.ts: of each of the two workers. */
const MOST_HELD = 2 * 1024;
/**
 * How many of each sort, and how many seconds it is put up with. Together they stay below what
 * connection_shares.ts lets all pods have beyond their shares of 7,000, so that it is each flood's
 * own bound that is met.
 */
const FLOODS = {
  tcp: { connections: 5_000, deadline: 10 },
  hello: { connections: 1_000, deadline: 10 },
  open: { connections: 1_000, deadline: 5 },
} as const;
type Flood = keyof typeof FLOODS;

Deno.test("floods of connections, half handshakes and half OPENs: gone in time, others hardly notice", async () => {
  const victims = Object.keys(FLOODS).map((name) => ({ name, node: "node-b", annotation: "true" }));
  await using lab = await openScene([
    ...WEB_AND_API,
    ...victims,
    { name: "intruder", node: "node-a" },
  ]);
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  const agents = lab.nodes.map(({ name }) => lab.agent(name));
  for (const server of [api, lab.pod("tcp")]) await server.serve("echo", PORT);
  const more = await partialOpen(lab);
  const warm = new Pinger(web, api.ipv4!, PORT);
  await warm.pace(2);
  warm.stop();
  const atRest = await Promise.all(agents.map(quiet));

  const pinger = new Pinger(web, api.ipv4!, PORT);
  const before = await pinger.pace();
  const [tcp, hello] = [startFlood(lab, "tcp"), startFlood(lab, "hello")];
  await Promise.all([tcp, hello].map(there));
  const during = await pinger.pace(3);
  // Whoever comes first does not keep others out: this is the first tunnel to the pod, which is
  // flooded to the brim.
  const { code, stdout } = await web.connect("echo", lab.pod("tcp").ipv4!, PORT);
  assert.equal(code, 0, stdout);
  const open = startFlood(lab, "open", more);
  await there(open);
  const most = residentKilobytes(agents[1]!.pid); // with all three of them
  const duringAll = await pinger.pace(2);
  const ends = { tcp: await gone(tcp), hello: await gone(hello), open: await gone(open) };
  pinger.stop();
  assertAtMostDoubles(before, during);
  assertAtMostDoubles(before, duringAll);

  for (const what of ["tcp", "hello", "open"] as const) assertHeld(what, ends[what]);
  // Whoever was put up with was cut off by a deadline, and whoever was not was one too many.
  const { enrolments } = await lab.agent("node-b").status();
  for (const [name, { held, dropped }] of Object.entries(ends)) {
    const { traffic } = enrolments.find(({ pod }) => pod === `default/${name}`)!;
    const counted = traffic?.refused ?? {};
    assert.deepEqual([counted.deadline, counted.too_many_handshakes ?? 0], [held, dropped], name);
  }
  await Promise.all(agents.map(quiet));
  await isBack(agents, atRest, 8_000);
  console.log(
    `memory in MiB: ${[atRest[1]!.memory, most, (await usage(agents[1]!)).memory].map(mebibytes)}`,
  );
});

function assertHeld(what: Flood, { held, dropped, shortest, longest }: AppEvent): void {
  const { connections, deadline } = FLOODS[what];
  console.log(`${what}: ${held} held for ${shortest} to ${longest} s, ${dropped} dropped before`);
  assert.equal(Number(held) + Number(dropped), connections);
  assert.ok(Number(held) >= Math.min(connections, MOST_HELD) * 0.8 && Number(held) <= MOST_HELD);
  assert.ok(Number(longest) < deadline + 3, `${longest} s`);
}

function mebibytes(kibibytes: number): number {
  return Math.round(kibibytes / 1024);
}

/** All of an OPEN but its last byte, by somebody whose certificate is good. */
async function partialOpen(lab: Lab): Promise<string[]> {
  const mine = lab.pod("intruder").ipv4!;
  const ca = await Authority.ofCluster(lab.directory, lab.temporary);
  const uris = ["spiffe://cluster.local/ns/default/sa/intruder"];
  const { certificate, key } = await ca.issue({ uris, addresses: [mine] });
  const open = openFrame({ port: PORT, client: mine, dialled: lab.pod("open").ipv4! });
  return ["--certificate", certificate, "--key", key, "--send", open.slice(0, -2)];
}

/** Floods the victim of that name. */
function startFlood(
  lab: Lab,
  what: Flood,
  more: string[] = [],
): LabProcess {
  const { connections, deadline } = FLOODS[what];
  return lab.pod("intruder").spawn([
    ...["python3", "-B", "-S", `${import.meta.dirname}/lab/apps/flood.py`, "--until", what],
    ...["--host", lab.pod(what).ipv4!, "--port", `${TUNNEL_PORT}`],
    ...["--connections", `${connections}`, "--deadline", `${deadline}`, ...more],
  ]);
}

function there(flood: LabProcess): Promise<AppEvent> {
  return flood.waitForEvent(({ event }) => event === "there", 20_000);
}

function gone(flood: LabProcess): Promise<AppEvent> {
  return flood.waitForEvent(({ event }) => event === "gone", 40_000);
}
