import { delay } from "../../lab/delay.ts";
import type { Pod } from "../../lab/pod.ts";
import type { LabProcess } from "../../lab/process.ts";
import { type Contender, type ContenderName, plainPort, PORTS, tlsPort } from "./contender.ts";

export interface PairOptions {
  readonly name: ContenderName;
  readonly client: Pod;
  readonly server: Pod;
  /** What the proxies are started with. */
  readonly clientCommand: string[];
  readonly serverCommand: string[];
}

/**
 * A proxy in each of two pods, as a sidecar would be: in the pod's namespace, in a cgroup of its
 * own.
 */
export async function openPair(options: PairOptions): Promise<Contender> {
  const { name, client, server } = options;
  const sides = [
    new Sidecar(server, options.serverCommand, PORTS.map(tlsPort)),
    new Sidecar(client, options.clientCommand, PORTS.map(plainPort)),
  ];
  for (const side of sides) await side.start();
  const way = {
    client,
    address: (port: number) => ({ host: "127.0.0.1", port: plainPort(port) }),
  };
  return {
    ...way,
    name,
    neighbour: way,
    cgroups: sides.map(({ cgroup }) => cgroup),
    async restart() {
      for (const side of sides) await side.stop();
      for (const side of sides) await side.start();
    },
  };
}

class Sidecar {
  readonly cgroup: string;
  #process?: LabProcess;

  constructor(
    readonly pod: Pod,
    readonly command: string[],
    readonly ports: readonly number[],
  ) {
    this.cgroup = `${pod.cgroup}/proxy`;
  }

  /** Resolves when it listens. @throws {Error} with what it printed when it does not. */
  async start(): Promise<void> {
    await Deno.mkdir(this.cgroup, { recursive: true });
    const started = this.pod.spawn(["sh", "-c", ENTER, "sh", this.cgroup, ...this.command]);
    this.#process = started;
    let code: number | undefined;
    started.exited.then((ended) => code = ended).catch(() => {});
    for (const deadline = Date.now() + 10_000; !await this.#listens();) {
      if (code !== undefined || Date.now() > deadline) {
        const [program] = this.command;
        throw new Error(`${program} does not listen (${code}): ${started.stderr.tail(5)}`);
      }
      await delay(50);
    }
  }

  async stop(): Promise<void> {
    await this.#process?.stop("SIGTERM");
  }

  async #listens(): Promise<boolean> {
    const { stdout } = await this.pod.run(["ss", "-Hltn"]);
    return this.ports.every((port) => stdout.includes(`:${port} `));
  }
}

/**
 * As the lab starts processes, and as many descriptors as are allowed: 5,000 connections need
 * 10,000.
 */
const ENTER = 'echo $$ > "$1/cgroup.procs" && shift && ulimit -n "$(ulimit -Hn)" && exec "$@"';
