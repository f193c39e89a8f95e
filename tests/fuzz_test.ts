/**
 * The promise: whatever a stranger, or a peer with a good certificate, sends to a tunnel port, the
 * agent goes on.
 */
import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { openFrame } from "./lab/hostile.ts";
import type { Lab } from "./lab/lab.ts";
import { Authority } from "./lab/pki.ts";
import { register } from "./lab/registry.ts";
import type { LabProcess } from "./lab/process.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";
import { isBack, quiet, residentKilobytes } from "./lab/usage.ts";

const PORT = 9000;
const SEED = 20_260;
/** Before and inside of TLS. */
const ATTEMPTS = { outside: 4_000, inside: 2_000 } as const;
/** Unfinished at the same time, of each sort: fewer than a pod may have. */
const HELD = 800;
const KILOBYTES_AN_ATTEMPT = 64;
/** How much the heap may vary while attempts come and go. */
const HEAP_KILOBYTES = 40_000;

Deno.test("thousands of connections full of nonsense: the agent survives, keeps nothing, and serves", async () => {
  await using lab = await openScene([...WEB_AND_API, { name: "intruder", node: "node-a" }]);
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  const agent = lab.agent("node-b");
  await api.serve("echo", PORT);
  const credential = await peerCredential(lab);
  const inside = (attempts: number, seed: number) => fuzz(lab, attempts, seed, credential);
  const outside = (attempts: number, seed: number) => fuzz(lab, attempts, seed);
  const serves = async () => assert.equal((await web.connect("echo", api.ipv4!, PORT)).code, 0);

  // Once before it is measured: code is compiled, and the heap finds its size.
  await serves();
  for (const warm of [inside(500, SEED - 1), outside(500, SEED - 1)]) await ended(warm, 500);
  const atRest = await quiet(agent);
  const from = agent.log.length;

  const most = peak(agent.pid);
  const [first, second] = [outside(ATTEMPTS.outside, SEED), inside(ATTEMPTS.inside, SEED + 1)];
  const ends = [await ended(first, ATTEMPTS.outside), await ended(second, ATTEMPTS.inside)];
  const passing = most.stop() - atRest.memory;
  assert.ok(passing <= HEAP_KILOBYTES, `${passing} KiB more`);
  await serves();

  const held = [
    fuzz(lab, HELD, SEED + 2, ["--hold"]),
    fuzz(lab, HELD, SEED + 3, ["--hold", ...credential]),
  ];
  const mostHeld = peak(agent.pid);
  for (const each of held) await ended(each, HELD);
  await serves();
  const growth = (mostHeld.stop() - atRest.memory) / (2 * HELD);
  console.log(JSON.stringify(ends), `${passing} KiB; held: ${growth} KiB each`);
  assert.ok(growth <= KILOBYTES_AN_ATTEMPT, `${growth} KiB for each unfinished attempt`);
  await Promise.all(held.map((each) => each.stop("SIGKILL")));

  await quiet(agent);
  await isBack([agent], [atRest], 8_000);
  await serves();
  assert.equal(agent.isRunning, true);
  // What was refused was refused for what it said, not because something broke.
  const wrong = agent.log.slice(from).filter(({ level, reason, message }) =>
    level === "ERROR" || reason === "internal" ||
    /internal|undefined|not a function/.test(`${message}`)
  );
  assert.deepEqual(wrong.slice(0, 3), [], `seed ${SEED}`);
});

/** Of a pod that the registry names, with a frame that would be all right. */
async function peerCredential(lab: Lab): Promise<string[]> {
  const mine = lab.pod("intruder").ipv4!;
  const ca = await Authority.ofCluster(lab.directory, lab.temporary);
  const uris = ["spiffe://cluster.local/ns/default/sa/intruder"];
  const { certificate, key } = await ca.issue({ uris, addresses: [mine] });
  await register(lab, lab.pod("intruder"), "spiffe://cluster.local/ns/default/sa/intruder");
  const open = openFrame({ port: PORT, client: mine, dialled: lab.pod("api").ipv4! });
  return ["--certificate", certificate, "--key", key, "--open", open];
}

function fuzz(lab: Lab, attempts: number, seed: number, more: string[] = []): LabProcess {
  return lab.pod("intruder").spawn([
    ...["python3", "-B", "-S", `${import.meta.dirname}/lab/apps/fuzz.py`],
    ...["--host", lab.pod("api").ipv4!, "--port", `${TUNNEL_PORT}`],
    ...["--attempts", `${attempts}`, "--seed", `${seed}`, ...more],
  ], { stdin: true });
}

/** How the attempts ended, when there were so many. */
async function ended(program: LabProcess, attempts: number): Promise<Record<string, number>> {
  const { ends } = await program.waitForEvent(({ event }) => event === "attempts", 60_000);
  const counts = ends as Record<string, number>;
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  assert.equal(total, attempts, JSON.stringify(counts));
  return counts;
}

/** The most memory of a process, in KiB, until it is stopped. */
function peak(pid: number): { stop(): number } {
  let most = 0;
  const look = () => void (most = Math.max(most, residentKilobytes(pid)));
  const timer = setInterval(look, 50);
  return {
    stop() {
      look();
      clearInterval(timer);
      return most;
    },
  };
}
