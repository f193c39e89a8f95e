/** The main thread's view of the relay workers: commands to all of them, answers from each. */
import { Bell } from "../native/epoll.ts";
import type {
  ConnectionReport,
  Denied,
  LeavingPeer,
  PodDescription,
  PodReport,
  ProofResult,
  RelayCredentials,
  RelaySettings,
  ShownCertificate,
  StreamReport,
  WorkerCommand,
  WorkerDescription,
  WorkerEvent,
} from "./messages.ts";
import { Load } from "./loop/load.ts";
import { NO_TRAFFIC, sumOf, type Traffic } from "./traffic.ts";

/** Longer than a worker takes for a proof, whatever comes of it. */
const PROOF_MILLISECONDS = 6_000;

/** A pod's description without its sockets, and the sockets of each worker. */
export interface RelayEnrolment {
  readonly pod: Omit<PodDescription, "outbound" | "inbound">;
  /** Given: the workers close them. One entry per worker. */
  readonly sockets: readonly Pick<PodDescription, "outbound" | "inbound">[];
}

export interface RelayOptions extends WorkerDescription {
  readonly count: number;
  readonly log: (event: WorkerEvent & { type: "log" }) => void;
  /** Some streams have ended; more have, too, `left` says how many in which namespace. */
  readonly finished: (
    streams: readonly StreamReport[],
    left: ReadonlyMap<string, number>,
  ) => void;
  /**
   * The registry gives an address to another identity than the one that has a certificate for it.
   */
  readonly shown: (shown: ShownCertificate) => void;
  /** A worker ended by itself: the agent cannot go on. */
  readonly died: (reason: string) => void;
}

/** What of a Worker is needed; another one only in tests. */
export interface WorkerThread {
  onmessage: ((message: MessageEvent<WorkerEvent>) => void) | null;
  onerror: ((event: ErrorEvent) => void) | null;
  postMessage(command: WorkerCommand): void;
  terminate(): void;
}

/** What all workers have done. */
export interface RelayReport {
  /** By UID. */
  readonly pods: ReadonlyMap<string, PodReport>;
  /** Of the pods that are withdrawn, together. */
  readonly past: Traffic;
}

export class RelayWorkers implements Disposable {
  readonly #threads: Thread[];
  #nextReport = 0;
  #nextRelay = 0;

  constructor(options: RelayOptions, startThread: () => WorkerThread = newWorker) {
    const load = Load.memoryFor(options.count);
    const passed = ({ to, connection }: WorkerEvent & { type: "passed" }) =>
      this.#threads[to]?.tell({ type: "take", connection });
    this.#threads = Array.from(
      { length: options.count },
      (_, worker) => new Thread(options, worker, load, passed, startThread()),
    );
  }

  get count(): number {
    return this.#threads.length;
  }

  /** A name for the next pod to enrol. */
  newRelay(): number {
    return this.#nextRelay++;
  }

  /**
   * Resolves when every worker serves the pod; rejects, with nothing left behind, when one cannot.
   */
  async enrol({ pod, sockets }: RelayEnrolment, credentials: RelayCredentials): Promise<void> {
    const answers = await Promise.allSettled(this.#threads.map((thread, index) => {
      const own = sockets[index] ?? { outbound: [], inbound: [] };
      return thread.ask(
        { type: "enrol", pod: { ...pod, ...own }, credentials },
        (event) =>
          (event.type === "enrolled" || event.type === "failed") && event.relay === pod.relay,
      );
    }));
    const failed = answers.flatMap((answer) =>
      answer.status === "rejected"
        ? [String(answer.reason)]
        : answer.value.type === "failed"
        ? [answer.value.reason]
        : []
    );
    if (failed.length === 0) return;
    await this.withdraw(pod.relay, 0);
    throw new Error(failed[0]);
  }

  renew(relay: number, credentials: RelayCredentials): void {
    for (const thread of this.#threads) thread.tell({ type: "renew", relay, credentials });
  }

  adjust(relay: number, settings: RelaySettings): void {
    for (const thread of this.#threads) thread.tell({ type: "adjust", relay, settings });
  }

  /** Resolves when no worker holds anything of the pod any more. */
  async withdraw(relay: number, drainMilliseconds: number): Promise<void> {
    await Promise.all(
      this.#threads.map((thread) =>
        thread.ask(
          { type: "withdraw", relay, drainMilliseconds },
          (event) => event.type === "withdrawn" && event.relay === relay,
        )
      ),
    );
  }

  /** These are about to go from the kernel's map of peers. */
  peersLeaving(peers: readonly LeavingPeer[]): void {
    for (const thread of this.#threads) thread.tell({ type: "leaving", peers });
  }

  /** The kernel's map of peers has lost some, or says something else of them. */
  peersChanged(): void {
    for (const thread of this.#threads) thread.tell({ type: "peers" });
  }

  /** Whoever is among these is nobody from now on. */
  deny(denied: Denied): void {
    for (const thread of this.#threads) thread.tell({ type: "deny", denied });
  }

  /**
   * Makes a mutual TLS handshake from the pod's own namespace to its own tunnel port and through
   * its own listener, with its own credentials, and verifies what it shows as a peer would. No
   * stream is opened, and nothing is counted.
   */
  async prove(relay: number, address: string): Promise<ProofResult> {
    const id = this.#nextReport++;
    const thread = this.#threads[id % this.#threads.length];
    if (thread === undefined) return { ok: false, reason: "there is no relay worker" };
    const answer = await thread.ask(
      { type: "prove", id, relay, address },
      (event) => event.type === "proved" && event.id === id,
      PROOF_MILLISECONDS,
    );
    if (answer?.type === "proved") return answer.result;
    return {
      ok: false,
      reason: `a relay worker has not answered for ${PROOF_MILLISECONDS / 1000} s`,
    };
  }

  /** Each pod's counters, summed over the workers. Also proof that every worker answers. */
  async report(): Promise<RelayReport> {
    const id = this.#nextReport++;
    const answers = await Promise.all(
      this.#threads.map((thread) =>
        thread.ask({ type: "report", id }, (event) => event.type === "report" && event.id === id)
      ),
    );
    const pods = new Map<string, PodReport>();
    let past = NO_TRAFFIC;
    for (const answer of answers) {
      if (answer.type !== "report") continue;
      past = sumOf(past, answer.past);
      for (const pod of answer.pods) {
        pods.set(pod.uid, { uid: pod.uid, ...sumOf(pods.get(pod.uid) ?? NO_TRAFFIC, pod) });
      }
    }
    return { pods, past };
  }

  /** What is open now: the first of each worker, and how many there are. */
  async connections(): Promise<{ connections: ConnectionReport[]; count: number }> {
    const id = this.#nextReport++;
    const answers = await Promise.all(
      this.#threads.map((thread) =>
        thread.ask(
          { type: "connections", id },
          (event) => event.type === "connections" && event.id === id,
        )
      ),
    );
    const lists = answers.filter((answer) => answer.type === "connections");
    return {
      connections: lists.flatMap(({ connections }) => connections),
      count: lists.reduce((sum, { count }) => sum + count, 0),
    };
  }

  [Symbol.dispose](): void {
    for (const thread of this.#threads) thread[Symbol.dispose]();
  }
}

/** One worker, its bell, and who waits for which of its answers. */
class Thread implements Disposable {
  readonly #bell = new Bell();
  readonly #worker: WorkerThread;
  readonly #waiting = new Set<{
    matches: (event: WorkerEvent) => boolean;
    resolve: (event: WorkerEvent) => void;
  }>();

  constructor(
    options: RelayOptions,
    worker: number,
    load: SharedArrayBuffer,
    passed: (event: WorkerEvent & { type: "passed" }) => void,
    thread: WorkerThread,
  ) {
    this.#worker = thread;
    this.#worker.onmessage = (message: MessageEvent<WorkerEvent>) => {
      const event = message.data;
      if (event.type === "passed") return passed(event);
      if (event.type === "log") return options.log(event);
      if (event.type === "shown") return options.shown(event.shown);
      if (event.type === "streams") return options.finished(event.streams, event.left);
      for (const waiting of this.#waiting) {
        if (!waiting.matches(event)) continue;
        this.#waiting.delete(waiting);
        return waiting.resolve(event);
      }
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      options.died(event.message);
    };
    const { maps, trustDomain, tunnelIdleMilliseconds, maxConnections, accessLogEvery } = options;
    const context = { maps, trustDomain, tunnelIdleMilliseconds, maxConnections, accessLogEvery };
    this.#post({ type: "start", bell: this.#bell.descriptor, worker, load, context });
  }

  tell(command: WorkerCommand): void {
    this.#post(command);
    this.#bell.ring();
  }

  /** The answer to a command; undefined when there was none in so many milliseconds. */
  ask(
    command: WorkerCommand,
    matches: (event: WorkerEvent) => boolean,
    milliseconds: number,
  ): Promise<WorkerEvent | undefined>;
  ask(command: WorkerCommand, matches: (event: WorkerEvent) => boolean): Promise<WorkerEvent>;
  ask(
    command: WorkerCommand,
    matches: (event: WorkerEvent) => boolean,
    milliseconds?: number,
  ): Promise<WorkerEvent | undefined> {
    return new Promise((resolve) => {
      const waiting = {
        matches,
        resolve: (event: WorkerEvent | undefined) => {
          clearTimeout(timer);
          resolve(event);
        },
      };
      const giveUp = () => {
        this.#waiting.delete(waiting);
        resolve(undefined);
      };
      const timer = milliseconds === undefined ? undefined : setTimeout(giveUp, milliseconds);
      this.#waiting.add(waiting);
      this.tell(command);
    });
  }

  /**
   * The thread may be blocked in epoll_wait, where only the bell reaches it; the process exits
   * next.
   */
  [Symbol.dispose](): void {
    this.#worker.terminate();
    this.#bell.ring();
  }

  #post(command: WorkerCommand): void {
    this.#worker.postMessage(command);
  }
}

function newWorker(): WorkerThread {
  return new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
}
