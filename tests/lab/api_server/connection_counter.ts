import type { Running, Spawner } from "./host_process.ts";

/** Stands in a server's place while it is down, and notes when clients come. */
export class ConnectionCounter implements AsyncDisposable {
  static async start(place: Spawner, hostPort: string): Promise<ConnectionCounter> {
    const file = new URL(import.meta.url).pathname;
    const argv = [Deno.execPath(), "run", "-A", "--quiet", file, hostPort];
    const counter = new ConnectionCounter(place.spawn(argv, { stdin: true }));
    await counter.running.stdout.wait((line) => line === "listening", 20_000);
    return counter;
  }

  private constructor(private readonly running: Running) {}

  /** When each connection came, in milliseconds since 1970. */
  get connections(): number[] {
    return this.running.stdout.all.filter((line) => line !== "listening").map(Number);
  }

  /** The most connections that came within any `ms` milliseconds. */
  most(ms: number): number {
    const times = this.connections;
    return Math.max(
      0,
      ...times.map((begin) => times.filter((time) => time >= begin && time < begin + ms).length),
    );
  }

  async stop(): Promise<void> {
    await this.running.stop("SIGKILL");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

if (import.meta.main) {
  const [, hostname = "", port] = /^\[?(.*?)\]?:(\d+)$/.exec(Deno.args[0] ?? "") ?? [];
  const listener = Deno.listen({ hostname, port: Number(port) });
  console.log("listening");
  void Deno.stdin.readable.pipeTo(new WritableStream()).then(() => Deno.exit(0));
  for await (const connection of listener) {
    console.log(Date.now());
    connection.close();
  }
}
