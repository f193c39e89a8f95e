import {
  type AppEvent,
  type LabProcess,
  parseEvents,
  type Processes,
  type SpawnOptions,
} from "./process.ts";

/** A network namespace in which the lab can start processes: a pod, a node, or the outside. */
export class Place {
  constructor(
    protected readonly processes: Processes,
    /** The namespace's name for `ip netns`. */
    readonly netns: string,
    /** The cgroup of the processes started here. */
    readonly processCgroup: string,
  ) {}

  get netnsPath(): string {
    return `/run/netns/${this.netns}`;
  }

  spawn(argv: string[], options?: SpawnOptions): LabProcess {
    return this.processes.spawn(
      { netns: this.netns, cgroup: this.processCgroup },
      argv,
      options,
    );
  }

  /** Runs a program to its end. A non-zero exit code does not throw; a time-out does. */
  async run(argv: string[], options: RunOptions = {}): Promise<Finished> {
    const { timeoutMs = 60_000, ...spawnOptions } = options;
    const started = this.spawn(argv, spawnOptions);
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      started.kill();
    }, timeoutMs);
    const code = await started.exited.finally(() => clearTimeout(timer));
    const stdout = started.stdout.all.join("\n");
    const stderr = started.stderr.all.join("\n");
    if (late) {
      throw new Error(`${argv.join(" ")} still ran after ${timeoutMs} ms\n${stdout}\n${stderr}`);
    }
    return { code, stdout, stderr, events: parseEvents(started.stdout.all) };
  }

  /** Starts a server of apps/ here and waits until it listens. */
  async serve(mode: ServeMode, port: number, ...more: string[]): Promise<LabProcess> {
    const server = this.spawn([...APPS, "serve", "--mode", mode, "--port", `${port}`, ...more]);
    await server.waitForEvent(({ event }) => event === "listening");
    return server;
  }

  /** Runs a client of apps/ here; `result` is the last JSON line that it printed. */
  async connect(
    mode: ConnectMode,
    host: string,
    port: number,
    ...more: string[]
  ): Promise<ClientResult> {
    const finished = await this.run(clientCommand(mode, host, port, more), { timeoutMs: 120_000 });
    return { ...finished, result: finished.events.at(-1) ?? {} };
  }

  /** Starts a client that goes on running, such as `send` without a count. */
  startClient(mode: ConnectMode, host: string, port: number, ...more: string[]): LabProcess {
    return this.spawn(clientCommand(mode, host, port, more));
  }
}

export interface RunOptions extends SpawnOptions {
  timeoutMs?: number;
}

export interface Finished {
  code: number;
  stdout: string;
  stderr: string;
  events: AppEvent[];
}

export interface ClientResult extends Finished {
  result: AppEvent;
}

export type ServeMode =
  | "echo"
  | "sink"
  | "hello"
  | "banner"
  | "peer"
  | "reset"
  | "close"
  | "halfclose"
  | "duplex"
  | "hold"
  | "udp";

export type ConnectMode =
  | "peer"
  | "who"
  | "udp"
  | "send"
  | "echo"
  | "duplex"
  | "halfclose"
  | "many"
  | "burst"
  | "expect-reset"
  | "reset"
  | "empty";

// -B: no __pycache__ in the source tree. -S: a quicker start without site packages.
const APPS = ["python3", "-B", "-S", `${import.meta.dirname}/apps`];

function clientCommand(mode: ConnectMode, host: string, port: number, more: string[]): string[] {
  return [...APPS, "connect", "--mode", mode, "--host", host, "--port", `${port}`, ...more];
}
