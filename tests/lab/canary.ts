import { until } from "./delay.ts";
import type { Pod } from "./pod.ts";
import type { LabProcess } from "./process.ts";

/**
 * Says a canary again and again to every address that two pods have both, by a connection of its
 * own each time.
 */
export class Canary implements AsyncDisposable {
  readonly #clients: readonly LabProcess[];

  /** A server of mode "hello" must listen there. */
  constructor(
    readonly client: Pod,
    readonly server: Pod,
    port: number,
    text: string,
    milliseconds = 30,
    hosts: readonly string[] = sharedAddresses(client, server),
  ) {
    this.#clients = hosts.map((host) =>
      client.startClient(
        ...["send", host, port, "--text", text, "--every", `${milliseconds}`] as const,
        ...["--new-connection", "--timeout", "10"],
      )
    );
  }

  /** Waits until each address has answered `count` times in a row from now on. */
  async answered(count = 5, milliseconds = 30_000): Promise<void> {
    await this.#next("sent", count, milliseconds);
  }

  /**
   * Waits until each address has refused `count` times in a row from now on: a peer that is not
   * ready is waited for by each.
   */
  async refused(count = 2, milliseconds = 60_000): Promise<void> {
    await this.#next("failed", count, milliseconds);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) await client.stop("SIGKILL");
  }

  async #next(wanted: string, count: number, milliseconds: number): Promise<void> {
    const from = this.#clients.map(({ stdout }) => stdout.all.length);
    const last = () => this.#clients.map(({ events }) => events.slice(-count));
    await until(
      () =>
        this.#clients.every(({ events }, index) =>
          events.length >= (from[index] ?? 0) + count &&
          events.slice(-count).every(({ event }) => event === wanted)
        ),
      milliseconds,
      () => `${this.server.key} has not ${wanted} ${count} times: ${JSON.stringify(last())}`,
    );
  }
}

/** The server's, of the families that the client has, too. */
function sharedAddresses(client: Pod, server: Pod): string[] {
  return [
    ...(client.ipv4 && server.ipv4 ? [server.ipv4] : []),
    ...(client.ipv6 && server.ipv6 ? [server.ipv6] : []),
  ];
}
