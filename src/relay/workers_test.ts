/**
 * The main thread's side of the workers, with threads that answer as the test says; and a real
 * worker's way to commands.
 */
import { deepStrictEqual, match, rejects, strictEqual } from "node:assert/strict";
import { Socket } from "../native/socket.ts";
import { bytes, endpoint } from "../standalone/applications_for_tests.ts";
import type { PodDescription, WorkerCommand, WorkerEvent } from "./messages.ts";
import { NO_TRAFFIC } from "./traffic.ts";
import { type RelayOptions, RelayWorkers, type WorkerThread } from "./workers.ts";

class FakeThread implements WorkerThread {
  onmessage: ((message: MessageEvent<WorkerEvent>) => void) | null = null;
  onerror: ((event: ErrorEvent) => void) | null = null;
  readonly commands: WorkerCommand[] = [];
  isEnded = false;

  postMessage(command: WorkerCommand): void {
    this.commands.push(command);
  }

  terminate(): void {
    this.isEnded = true;
  }

  say(event: WorkerEvent): void {
    this.onmessage?.(new MessageEvent("message", { data: event }));
  }

  /** The types of the commands but for the first. */
  get types(): string[] {
    return this.commands.slice(1).map(({ type }) => type);
  }

  /** Of the last command. */
  get id(): number {
    const last = this.commands.at(-1);
    return last !== undefined && "id" in last ? last.id : -1;
  }
}

const POD: Omit<PodDescription, "outbound" | "inbound"> = {
  relay: 7,
  uid: "uid",
  name: "shop/web",
  identity: "spiffe://td/ns/shop/sa/web",
  addresses: ["10.0.0.1"],
  settings: { policy: undefined, strictEgress: false },
  cookie: 1n,
  namespace: -1,
  outboundPort: 18_000,
};
const CREDENTIALS = { chain: [], privateKey: new Uint8Array(), roots: [], notAfter: 0 };

class Scene {
  readonly threads: FakeThread[] = [];
  /** Logs, finished streams and deaths, in order. */
  readonly told: string[] = [];
  readonly options: RelayOptions = {
    count: 2,
    maps: {
      ...{ peers: -1, identities: -1, flows: -1, origins: -1 },
      ...{ frontends: -1, backends: -1, affinities: -1 },
    },
    trustDomain: "td",
    tunnelIdleMilliseconds: 0,
    maxConnections: 10,
    accessLogEvery: 0,
    log: ({ message }) => this.told.push(message),
    finished: (streams, left) =>
      this.told.push(`${streams.length} finished, ${left.get("shop")} left`),
    shown: ({ address }) => this.told.push(`shown: ${address}`),
    died: (reason) => this.told.push(`died: ${reason}`),
  };
  readonly workers = new RelayWorkers(this.options, () => {
    const thread = new FakeThread();
    this.threads.push(thread);
    return thread;
  });

  get one(): FakeThread {
    return this.threads[0] ?? new FakeThread();
  }

  get other(): FakeThread {
    return this.threads[1] ?? new FakeThread();
  }
}

/** Whether a promise is still open when everything else has had its turn. */
async function isOpen(promise: Promise<unknown>): Promise<boolean> {
  let open = true;
  promise.then(() => open = false, () => open = false);
  await new Promise((resolve) => setTimeout(resolve, 0));
  return open;
}

const SOCKETS = [{ outbound: [1], inbound: [2] }, { outbound: [3], inbound: [4] }];

Deno.test("each worker is started with its number, and given sockets of its own", async () => {
  const { workers, one, other } = new Scene();
  const starts = [one, other].map(({ commands: [start] }) => start);
  deepStrictEqual(starts.map((start) => start?.type === "start" && start.worker), [0, 1]);
  const enrolled = workers.enrol({ pod: POD, sockets: SOCKETS }, CREDENTIALS);
  const given = [one, other].map(({ commands: [, enrol] }) =>
    enrol?.type === "enrol" && [enrol.pod.outbound, enrol.pod.inbound]
  );
  deepStrictEqual(given, [[[1], [2]], [[3], [4]]]);
  other.say({ type: "enrolled", relay: 7 });
  one.say({ type: "enrolled", relay: 8 });
  strictEqual(await isOpen(enrolled), true, "not before all of them serve this one");
  one.say({ type: "enrolled", relay: 7 });
  await enrolled;
  deepStrictEqual([workers.newRelay(), workers.newRelay()], [0, 1], "no name twice");
});

Deno.test("an enrolment that one worker cannot do is withdrawn from all before it fails", async () => {
  const { workers, one, other } = new Scene();
  const enrolled = workers.enrol({ pod: POD, sockets: SOCKETS }, CREDENTIALS);
  enrolled.catch(() => {});
  one.say({ type: "failed", relay: 7, reason: "the trust bundle is empty" });
  strictEqual(await isOpen(enrolled), true);
  deepStrictEqual(other.types, ["enrol"], "the other one may still be at it");
  other.say({ type: "enrolled", relay: 7 });
  strictEqual(await isOpen(enrolled), true);
  deepStrictEqual([one.types, other.types], [["enrol", "withdraw"], ["enrol", "withdraw"]]);
  for (const thread of [one, other]) thread.say({ type: "withdrawn", relay: 7 });
  await rejects(enrolled, /the trust bundle is empty/);
});

Deno.test("a pod is withdrawn when no worker has anything of it", async () => {
  const { workers, one, other } = new Scene();
  const withdrawn = workers.withdraw(7, 30_000);
  one.say({ type: "withdrawn", relay: 7 });
  other.say({ type: "withdrawn", relay: 8 });
  strictEqual(await isOpen(withdrawn), true);
  other.say({ type: "withdrawn", relay: 7 });
  await withdrawn;
});

Deno.test("what is to hold is told to every worker", () => {
  const { workers, one, other } = new Scene();
  workers.renew(7, CREDENTIALS);
  workers.adjust(7, POD.settings);
  workers.peersLeaving([]);
  workers.peersChanged();
  workers.deny({ serials: new Set(), identities: new Set(), pods: new Set() });
  const all = ["renew", "adjust", "leaving", "peers", "deny"];
  deepStrictEqual([one.types, other.types], [all, all]);
});

Deno.test("reports and connections are sums over the workers, each answer for its own question", async () => {
  const { workers, one, other } = new Scene();
  const report = workers.report();
  const { id } = one;
  const pod = { uid: "uid", ...NO_TRAFFIC, streams: 2, groups: { X25519: 1 } };
  const past = { ...NO_TRAFFIC, streams: 10 };
  one.say({ type: "report", id: id - 1, pods: [], past });
  one.say({ type: "report", id, pods: [pod], past });
  strictEqual(await isOpen(report), true);
  other.say({ type: "report", id, pods: [pod, { ...pod, uid: "b" }], past });
  const { pods, past: sum } = await report;
  deepStrictEqual([pods.get("uid")?.streams, pods.get("b")?.streams, sum.streams], [4, 2, 20]);
  deepStrictEqual(pods.get("uid")?.groups, { X25519: 2 });

  const connections = workers.connections();
  for (const [index, thread] of [one, other].entries()) {
    thread.say({ type: "connections", id: thread.id, connections: [], count: 5 + index });
  }
  strictEqual((await connections).count, 11);
});

Deno.test("proofs take turns, and one that is never answered has failed after six seconds", async () => {
  const { workers, one, other } = new Scene();
  const proofs = [workers.prove(7, "10.0.0.1"), workers.prove(7, "10.0.0.1")];
  deepStrictEqual([one.types, other.types], [["prove"], ["prove"]]);
  const result = { ok: true, notAfter: 0, milliseconds: 1 } as const;
  other.say({ type: "proved", id: other.id, result });
  one.say({ type: "proved", id: one.id, result });
  deepStrictEqual(await Promise.all(proofs), [result, result]);

  const real = globalThis.setTimeout;
  const waits: (number | undefined)[] = [];
  globalThis.setTimeout = ((end: () => void, milliseconds?: number) => {
    waits.push(milliseconds);
    return real(end, 0);
  }) as typeof setTimeout;
  try {
    const late = await workers.prove(7, "10.0.0.1");
    match(late.ok ? "" : late.reason, /has not answered for 6 s/);
    deepStrictEqual(waits, [6_000]);
  } finally {
    globalThis.setTimeout = real;
  }
  const { id } = one;
  const report = workers.report();
  one.say({ type: "proved", id, result }); // too late, for nobody
  strictEqual(await isOpen(report), true);
});

Deno.test("what workers say unasked goes where it belongs: another worker, the log, the agent", () => {
  const { one, other, told, workers } = new Scene();
  const connection = { relay: 7, listener: 1, descriptor: 5, peer: endpoint("10.0.0.1", 1) };
  one.say({ type: "passed", to: 1, connection });
  deepStrictEqual([one.types, other.types], [[], ["take"]]);
  one.say({ type: "log", level: "info", message: "hello", fields: {} });
  other.say({ type: "streams", streams: [], left: new Map([["shop", 3]]) });
  one.say({ type: "shown", shown: { address: "10.0.0.1", identity: "x", notAfter: 0 } });
  const event = new ErrorEvent("error", { message: "out of memory", cancelable: true });
  other.onerror?.(event);
  deepStrictEqual(told, ["hello", "0 finished, 3 left", "shown: 10.0.0.1", "died: out of memory"]);
  strictEqual(event.defaultPrevented, true, "the agent ends as it likes");
  workers[Symbol.dispose]();
  deepStrictEqual([one.isEnded, other.isEnded], [true, true]);
});

Deno.test("real workers take every command, in order, also those that came before their loops", async () => {
  const { options, told } = new Scene();
  using workers = new RelayWorkers(options);
  const listening = () => {
    const socket = Socket.forAddress(bytes("127.0.0.1"));
    socket.bind(endpoint("127.0.0.1", 0));
    socket.listen();
    return socket.descriptor;
  };
  const sockets = [0, 1].map(() => ({ outbound: [listening()], inbound: [listening()] }));
  workers.renew(1, CREDENTIALS); // of a pod that is not there
  await rejects(workers.enrol({ pod: POD, sockets }, CREDENTIALS), /the trust bundle is empty/);
  deepStrictEqual((await workers.report()).pods.size, 0);
  strictEqual((await workers.connections()).count, 0);
  deepStrictEqual(await workers.prove(7, "10.0.0.1"), {
    ok: false,
    reason: "the pod is not enrolled here",
  });
  const answers = await Promise.all(Array.from({ length: 50 }, () => workers.report()));
  strictEqual(answers.length, 50);
  deepStrictEqual(told, []);
});
