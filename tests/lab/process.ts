import { Lines } from "./lines.ts";

/** Where a process runs: a named network namespace and a cgroup directory. */
export interface Surroundings {
  netns: string;
  cgroup: string;
}

export interface SpawnOptions {
  env?: Record<string, string>;
  cwd?: string;
  /** Open `stdin` for `write()`; otherwise it is /dev/null. */
  stdin?: boolean;
  /** Called for each line of stdout as it comes. */
  onLine?: (line: string) => void;
  /** Called for each line of stderr as it comes. */
  onErrorLine?: (line: string) => void;
  /** Called with the raw bytes of stdout instead of collecting its lines. */
  onBytes?: (chunk: Uint8Array) => void;
}

/** A process of the lab. Disposing it kills it; so does closing the lab. */
export class LabProcess implements AsyncDisposable {
  readonly pid: number;
  readonly stdout: Lines;
  readonly stderr: Lines;
  /** The exit code (128 + the signal's number if a signal ended it), after all output was read. */
  readonly exited: Promise<number>;
  readonly #child: Deno.ChildProcess;
  readonly #input?: WritableStreamDefaultWriter<Uint8Array>;

  constructor(surroundings: Surroundings, argv: string[], options: SpawnOptions = {}) {
    this.#child = new Deno.Command("/bin/sh", {
      args: ["-c", ENTER, "sh", surroundings.cgroup, surroundings.netns, ...argv],
      env: options.env,
      cwd: options.cwd,
      stdin: options.stdin ? "piped" : "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.pid = this.#child.pid;
    if (options.stdin) this.#input = this.#child.stdin.getWriter();
    const output = this.#child.stdout;
    this.stdout = new Lines(
      options.onBytes ? output.pipeThrough(drainInto(options.onBytes)) : output,
      options.onLine,
    );
    this.stderr = new Lines(this.#child.stderr, options.onErrorLine);
    this.exited = this.#finish();
  }

  async write(text: string): Promise<void> {
    if (!this.#input) throw new Error("Cannot write to the process: it was started without stdin");
    await this.#input.write(new TextEncoder().encode(text));
  }

  async closeInput(): Promise<void> {
    await this.#input?.close().catch(() => {}); // The process may have gone before.
  }

  /** The first stdout line that is a JSON object for which `predicate` holds. */
  async waitForEvent(
    predicate: (event: AppEvent) => boolean,
    timeoutMs = 10_000,
  ): Promise<AppEvent> {
    const matches = (line: string) => parseEvents([line]).some(predicate);
    try {
      return parseEvents([await this.stdout.wait(matches, timeoutMs)])[0]!;
    } catch (cause) {
      throw new Error(`No such event from pid ${this.pid}; stderr:\n${this.stderr.tail()}`, {
        cause,
      });
    }
  }

  /** Every JSON object printed so far, one a line. */
  get events(): AppEvent[] {
    return parseEvents(this.stdout.all);
  }

  kill(signal: Deno.Signal = "SIGKILL"): void {
    try {
      this.#child.kill(signal);
    } catch {
      // It has ended already, which is what was wanted.
    }
  }

  /** Asks the process to end and returns its exit code; after `timeoutMs` it is killed. */
  async stop(signal: Deno.Signal = "SIGTERM", timeoutMs = 10_000): Promise<number> {
    this.kill(signal);
    const timer = setTimeout(() => this.kill(), timeoutMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop("SIGKILL");
  }

  async #finish(): Promise<number> {
    const [status] = await Promise.all([
      this.#child.status,
      this.stdout.ended,
      this.stderr.ended,
    ]);
    await this.closeInput();
    return status.code;
  }
}

/** The processes of one lab, so that none can outlive it. */
export class Processes {
  readonly #running = new Set<LabProcess>();

  spawn(surroundings: Surroundings, argv: string[], options?: SpawnOptions): LabProcess {
    const started = new LabProcess(surroundings, argv, options);
    this.#running.add(started);
    started.exited.finally(() => this.#running.delete(started)).catch(() => {});
    return started;
  }

  async killAll(): Promise<void> {
    await Promise.all([...this.#running].map((running) => running.stop("SIGKILL")));
  }
}

/** One JSON line of an application in a pod (see apps/). */
export type AppEvent = Record<string, unknown>;

export function parseEvents(lines: string[]): AppEvent[] {
  return lines.flatMap((line) => {
    if (!line.startsWith("{")) return [];
    try {
      return [JSON.parse(line) as AppEvent];
    } catch {
      return [];
    }
  });
}

// The shell moves itself before it becomes the program, so the program's first instruction already
// runs in its cgroup and namespace. exec keeps the pid: it is the program's own.
const ENTER = 'echo $$ > "$1/cgroup.procs" && netns="/run/netns/$2" && shift 2 && ' +
  'exec nsenter --net="$netns" -- "$@"';

/** Hands every chunk to `sink` and passes none on. */
function drainInto(sink: (chunk: Uint8Array) => void): TransformStream<Uint8Array, Uint8Array> {
  return new TransformStream({ transform: sink });
}

/** Runs one shell script outside the lab's namespaces. @throws {Error} with what it printed. */
export async function runScript(script: string): Promise<void> {
  const child = new Deno.Command("/bin/sh", {
    args: ["-e", "-s"],
    stdin: "piped",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const input = child.stdin.getWriter();
  await input.write(new TextEncoder().encode(script));
  await input.close();
  const { code, stderr } = await child.output();
  if (code !== 0) {
    throw new Error(`The lab's script failed (${code}): ${new TextDecoder().decode(stderr)}`);
  }
}
