import { get } from "node:http";
import { text } from "node:stream/consumers";
import { delay } from "./delay.ts";
import type { Node } from "./node.ts";
import type { Pod } from "./pod.ts";
import type { LabProcess, Processes } from "./process.ts";

export interface AgentOptions {
  /** Further arguments, after the lab's own. */
  args?: string[];
  env?: Record<string, string>;
  /** The pod that it is, on its node's network; when not given, it is no pod. */
  pod?: Pod;
  /** Whether to wait until the agent answers on its admin socket (default: true). */
  wait?: boolean;
}

/** One line of the agent's log (`--log-format json`). */
export interface LogLine {
  level?: string;
  message?: string;
  [field: string]: unknown;
}

export interface AgentStatus {
  node: string;
  enrolments: EnrolmentStatus[];
  peers: PeerStatus[];
  peerCount: number;
  problems: { where: string; message: string }[];
  [field: string]: unknown;
}

export interface EnrolmentStatus {
  /** "namespace/name" */
  pod: string;
  uid: string;
  state: string;
  reason?: string;
  certificate?: { serial: string; notAfter: string };
  plaintext?: {
    packets: number;
    payloadBytes: number;
    peers: { peer: string; payloadBytes: number; first: string }[];
  };
  traffic?: {
    streams: number;
    streamsOpen: number;
    plainStreams: number;
    tunnelsOpen: number;
    handshakes: number;
    retries: number;
    /** By the reason's code. */
    refused: Record<string, number>;
  };
  [field: string]: unknown;
}

export interface PeerStatus {
  address: string;
  uid: string;
  [field: string]: unknown;
}

/** The paths that an agent shares with the lab. */
export interface AgentPaths {
  /** How the agent learns of the cluster: `--cluster DIR` or `--kubeconfig FILE`. */
  source: readonly string[];
  stateDirectory: string;
  adminSocket: string;
}

/** A running agent: the real command, on a node of the lab. */
export class Agent implements AsyncDisposable {
  readonly log: LogLine[] = [];
  readonly pid: number;
  readonly process: LabProcess;
  #isRunning = true;

  /** Use `Lab.startAgent`. */
  constructor(
    processes: Processes,
    readonly node: Node,
    readonly paths: AgentPaths,
    options: AgentOptions,
  ) {
    const argv = [
      ...RESTRICT,
      ...COMMAND,
      "agent",
      ...["--node-name", node.name],
      ...paths.source,
      ...["--cgroup-root", node.cgroup],
      ...["--state-dir", paths.stateDirectory],
      ...["--admin-socket", paths.adminSocket],
      ...["--workers", "2"],
      // For which the descriptors do that the tests' machine allows: fewer would be a problem in
      // the status.
      ...["--max-connections", "7000"],
      ...["--log-format", "json"],
      ...(options.args ?? []),
    ];
    this.process = processes.spawn(
      { netns: node.netns, cgroup: options.pod?.processCgroup ?? node.agentCgroup },
      argv,
      {
        env: { NO_COLOR: "1", ...options.env },
        cwd: REPOSITORY,
        onErrorLine: (line) => this.log.push(parseLog(line)),
      },
    );
    this.pid = this.process.pid;
    this.process.exited.finally(() => this.#isRunning = false).catch(() => {});
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  /**
   * The first log line from index `from` of `log` on, past or to come, for which `predicate` holds.
   */
  async waitForLog(
    predicate: (line: LogLine) => boolean,
    timeoutMs = 10_000,
    from = 0,
  ): Promise<LogLine> {
    const matches = (line: string) => predicate(parseLog(line));
    return parseLog(await this.process.stderr.wait(matches, timeoutMs, from));
  }

  /** Waits until the admin socket answers. @throws {Error} with the log if the agent ends first. */
  async waitReady(timeoutMs = 20_000): Promise<void> {
    for (const deadline = Date.now() + timeoutMs;;) {
      try {
        await this.status();
        return;
      } catch (cause) {
        if (!this.#isRunning) throw new Error(this.#describe("ended at its start"), { cause });
        if (Date.now() > deadline) throw new Error(this.#describe("does not answer"), { cause });
      }
      await delay(20);
    }
  }

  /** The status straight from the admin socket: cheap enough to poll. */
  async status(): Promise<AgentStatus> {
    const { status, body } = await getOverUnixSocket(this.paths.adminSocket, "/status");
    if (status !== 200) throw new Error(`The agent's status is HTTP ${status}: ${body}`);
    return JSON.parse(body) as AgentStatus;
  }

  /** How this agent sees one of its pods. */
  async enrolment(pod: { uid: string; key: string }): Promise<EnrolmentStatus> {
    const { enrolments } = await this.status();
    const found = enrolments.find(({ uid }) => uid === pod.uid);
    if (!found) throw new Error(this.#describe(`does not know ${pod.key}`));
    return found;
  }

  /** Runs a command that asks the agent (`status`, `conns`, `certs`) as an operator would. */
  async command(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    return await runCommand(this.node, ...args, "--admin-socket", this.paths.adminSocket);
  }

  /** What `kube-gateway status --json` prints. */
  async statusByCommand(): Promise<AgentStatus> {
    const { code, stdout, stderr } = await this.command("status", "--json");
    if (code !== 0) throw new Error(`kube-gateway status ended with ${code}: ${stderr}`);
    return JSON.parse(stdout) as AgentStatus;
  }

  /** Asks the agent to end (SIGTERM) and returns its exit code. */
  async stop(timeoutMs = 15_000): Promise<number> {
    return await this.process.stop("SIGTERM", timeoutMs);
  }

  /** Kills the agent as a crash would, and waits until it is gone. */
  async kill(): Promise<void> {
    await this.process.stop("SIGKILL");
  }

  logTail(count = 30): string {
    return this.process.stderr.tail(count) || "(no log)";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  #describe(what: string): string {
    return `The agent of ${this.node.name} ${what}. Its log:\n${this.logTail()}`;
  }
}

/** Not by fetch, which would obey NO_PROXY. */
function getOverUnixSocket(
  socketPath: string,
  path: string,
): Promise<{ status: number | undefined; body: string }> {
  return new Promise((resolve, reject) => {
    get({ socketPath, path, agent: false }, (response) => {
      text(response).then((body) => resolve({ status: response.statusCode, body }), reject);
    }).on("error", reject);
  });
}

/** Runs `kube-gateway` to its end on a node. */
export async function runCommand(
  node: Node,
  ...args: string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  return await node.run([...COMMAND, ...args], { cwd: REPOSITORY, env: { NO_COLOR: "1" } });
}

/** The repository, from which the command runs. */
export const REPOSITORY = new URL("../..", import.meta.url).pathname;
/** As in the image (daemonset/kube-gateway). */
export const V8_FLAGS = "--v8-flags=--max-semi-space-size=2";
/** What an agent gives up, as in the image. */
export const RESTRICT = [
  ...["setpriv", "--inh-caps=-all"],
  "--bounding-set=-all,+sys_admin,+bpf,+perfmon,+net_admin,+sys_ptrace,+sys_resource,+dac_override,+setuid",
];
/** What runs a program of the sources; its path and arguments follow. */
export const RUN = [Deno.execPath(), "run", V8_FLAGS, "-A"];
/** `kube-gateway`, from the sources. */
export const COMMAND = [...RUN, `${REPOSITORY}src/main.ts`];

// Before the log is set up, and when the runtime itself fails, a line can be anything.
function parseLog(line: string): LogLine {
  try {
    const parsed: unknown = JSON.parse(line);
    if (typeof parsed === "object" && parsed !== null) return parsed as LogLine;
  } catch {
    // Falls through: kept as it is.
  }
  return { message: line };
}
