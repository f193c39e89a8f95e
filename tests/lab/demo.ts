/**
 * The story of the README, step by step. Nothing is said that was not observed: the wire by a
 * capture between the nodes, what pod-02 hears by its own application. Exit status 0 only when
 * every step was.
 */
import { TUNNEL_PORT } from "../../src/constants.ts";
import { delay, until } from "./delay.ts";
import { Lab } from "./lab.ts";
import type { LabProcess } from "./process.ts";
import { bold, dim, green, red, Story, yellow } from "./story.ts";
import { type Captured, Ear, Wire } from "./witness.ts";

const PORT = 9000;
const TEXT = "Hello from pod-01";
/** How many packets or messages make an observation. */
const ENOUGH = 3;
const PATIENCE = 10_000;
/** The first byte of a TLS record that carries data (RFC 8446, 5.1). */
const TLS_APPLICATION_DATA = 23;
const STEPS = 7;

if (Deno.uid() !== 0) {
  console.error("demo: needs root (network namespaces, eBPF): try sudo scripts/demo");
  Deno.exit(1);
}
const story = new Story(Deno.args.includes("--json"));
// The lab closes itself on a signal; what then fails is no part of the story.
let exitCodeOfSignal: number | undefined;
Deno.addSignalListener("SIGINT", () => exitCodeOfSignal = 130);
Deno.addSignalListener("SIGTERM", () => exitCodeOfSignal = 143);
let lab: Lab | undefined;
try {
  story.step(
    "Two nodes, two pods, an agent on each node",
    "Namespaces, cgroups and processes play Kubernetes; the kernel, eBPF and TLS are real.",
  );
  lab = await Lab.open();
  await tell(lab);
} catch (error) {
  if (exitCodeOfSignal !== undefined) {
    await lab?.close();
    Deno.exit(exitCodeOfSignal);
  }
  // The first line says it; what may follow in the lab's errors is the agents' whole log.
  story.failed(String(error instanceof Error ? error.message : error).split("\n")[0] ?? "");
  for (const agent of lab?.agents.values() ?? []) {
    console.error(`\nThe end of the log of ${agent.node.name}'s agent:\n${agent.logTail(10)}`);
  }
} finally {
  await lab?.close();
}
const complete = story.observations.length === STEPS && story.isObserved;
story.end(
  `${green("All of it was observed")} in ${
    story.seconds.toFixed(1)
  } s; nothing of the lab is left.`,
);
Deno.exit(complete ? 0 : 1);

async function tell(lab: Lab): Promise<void> {
  const [client, server] = await lab.addPods([
    { name: "pod-01", node: "node-a", families: ["ipv4"] },
    { name: "pod-02", node: "node-b", families: ["ipv4"] },
  ]);
  if (client?.ipv4 === undefined || server?.ipv4 === undefined) {
    throw new Error("a pod has no address");
  }
  await Promise.all(lab.nodes.map(({ name }) => lab.startAgent(name)));
  story.observed(
    `pod-01 is ${client.ipv4} on node-a, pod-02 is ${server.ipv4} on node-b; both agents answer`,
    { "pod-01": client.ipv4, "pod-02": server.ipv4 },
  );

  const wire = await Wire.watch(lab, client, server);
  const listener = await server.serve("hello", PORT);
  const ear = new Ear(listener, TEXT);
  const speaker = client.startClient(
    ...["send", server.ipv4, PORT] as const,
    ...["--text", TEXT, "--every", "500", "--count", "1000", "--new-connection"],
  );

  await tellPlain(wire, ear, "pod-01 speaks to pod-02, in clear", client.ipv4);

  story.step(
    "Both pods are annotated",
    `${bold('kube-gateway.io: "true"')} in their objects, as kubectl annotate would write it.`,
  );
  for (const pod of [client, server]) await pod.annotate("true");
  const began = performance.now();
  for (const pod of [client, server]) await lab.waitEnrolled(pod);
  const milliseconds = Math.round(performance.now() - began);
  story.observed(`both are enrolled after ${milliseconds} ms`, { milliseconds });

  await tellEncrypted(wire, ear, client.ipv4);
  await tellStatus(lab);

  for (const pod of [client, server]) await pod.annotate(undefined);
  for (const pod of [client, server]) await lab.waitPlain(pod);
  await tellPlain(wire, ear, "The annotations are gone, and the clear text is back", client.ipv4);
  await tellNothingLost(speaker, ear);
}

async function tellPlain(wire: Wire, ear: Ear, title: string, from: string): Promise<void> {
  story.step(title, "A capture on the link between the nodes reads along:");
  const isReadable = ({ text, isAnswer }: Captured) => !isAnswer && text.includes(TEXT);
  const { packets, heard } = await observe(wire, ear, isReadable);
  for (const { port, text } of packets.slice(0, ENOUGH)) {
    story.quote(`port ${yellow(String(port))}   ${red(text.trim())}`);
  }
  expect(
    packets.every(({ port }) => port === PORT),
    "the clear text to pass on the application's port",
  );
  expect(heard.every((address) => address === from), `pod-02 to hear it from ${from}`);
  story.observed(`everybody on the wire can read it; pod-02 hears it from ${from}`, {
    destinationPorts: portsOf(packets),
    readable: packets.length,
    heard: heard.length,
    heardFrom: [...new Set(heard)],
  });
}

async function tellEncrypted(wire: Wire, ear: Ear, from: string): Promise<void> {
  story.step("The same words, encrypted", "The capture on the link between the nodes now sees:");
  const { packets: bothWays, heard } = await observe(wire, ear, () => true);
  const packets = bothWays.filter(({ isAnswer }) => !isAnswer);
  const records = packets.filter(({ bytes }) => bytes[0] === TLS_APPLICATION_DATA);
  for (const { port, bytes } of records.slice(0, ENOUGH)) {
    const excerpt = [...bytes.subarray(0, 20)].map((byte) => byte.toString(16).padStart(2, "0"));
    story.quote(
      `port ${yellow(String(port))}  ${dim(`${excerpt.join(" ")} … ${bytes.length} bytes`)}`,
    );
  }
  const readable = bothWays.filter(({ text }) => text.includes("Hello")).length;
  expect(readable === 0, "no clear text on the wire, in either direction");
  expect(records.length >= ENOUGH, "TLS application data on the wire");
  expect(
    bothWays.every(({ port }) => port === TUNNEL_PORT),
    `only port ${TUNNEL_PORT} on the wire, not ${portsOf(bothWays)}`,
  );
  expect(heard.every((address) => address === from), `pod-02 to hear it from ${from}`);
  story.observed(
    `only port ${TUNNEL_PORT}, nothing to read; pod-02 hears every word, from ${from} itself`,
    {
      destinationPorts: portsOf(packets),
      readable,
      heard: heard.length,
      heardFrom: [...new Set(heard)],
    },
  );
}

async function tellStatus(lab: Lab): Promise<void> {
  story.step("kube-gateway status");
  const [first, ...others] = [...lab.agents.values()];
  if (first === undefined) throw new Error("there is no agent");
  const sockets = others.flatMap(({ paths }) => ["--admin-socket", paths.adminSocket]);
  const { stdout, stderr } = await first.command("status", ...sockets);
  const active = stdout.match(/pod-0[12] .* active /g)?.length ?? 0;
  expect(active === 2, `two active pods in the table, not: ${stdout}${stderr}`);
  story.quote(stdout.trimEnd());
  story.observed("both nodes' enrolments are active", { active });
}

/**
 * Each message has a number: none may be missing, in clear or encrypted, nor on the way from one to
 * the other.
 */
async function tellNothingLost(speaker: LabProcess, ear: Ear): Promise<void> {
  story.step("Nothing was lost");
  await speaker.stop("SIGTERM");
  const said = speaker.events.filter(({ event }) => event === "sent").map(({ text }) =>
    String(text)
  );
  const failed = speaker.events.filter(({ event }) => event === "failed").length;
  const heard = new Set(ear.texts);
  const missing = said.filter((text) => !heard.has(text));
  expect(
    failed === 0 && missing.length === 0,
    `every message to arrive; ${failed} failed, missing are: ${missing.join(", ")}`,
  );
  story.observed(`pod-02 has heard all ${said.length} messages`, { said: said.length, failed });
}

/** What is seen on the wire and heard by pod-02 from now on, until there is enough of both. */
async function observe(
  wire: Wire,
  ear: Ear,
  counts: (packet: Captured) => boolean,
): Promise<{ packets: Captured[]; heard: string[] }> {
  await settle(ear);
  const packetsBefore = wire.packets.length;
  const heardBefore = ear.heard.length;
  const packets = () => wire.packets.slice(packetsBefore).filter(counts);
  const heard = () => ear.heard.slice(heardBefore);
  await until(
    () => packets().length >= ENOUGH && heard().length >= ENOUGH,
    PATIENCE,
    () => `saw ${packets().length} packets and heard ${heard().length} messages`,
  );
  return { packets: packets(), heard: heard() };
}

/** A message that was on its way when the step began belongs to the step before. */
async function settle(ear: Ear): Promise<void> {
  const before = ear.heard.length;
  await until(
    () => ear.heard.length > before,
    PATIENCE,
    () => "pod-02 hears nothing any more",
  );
  await delay(100); // The capture may tell of its packets later than the application hears them.
}

function portsOf(packets: readonly Captured[]): number[] {
  return [...new Set(packets.map(({ port }) => port))];
}

function expect(condition: boolean, what: string): void {
  if (!condition) throw new Error(`expected ${what}`);
}
