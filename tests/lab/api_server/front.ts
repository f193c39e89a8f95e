/**
 * The port that clients connect to. It hands bytes to the HTTPS server behind it and can do to
 * connections what an HTTP server cannot: close them all at once, or let them hang as a network
 * that drops packets does.
 */
export class Front {
  readonly port: number;
  /** When each connection was accepted, in milliseconds since 1970. */
  readonly accepted: number[] = [];
  readonly #listener: Deno.TcpListener;
  readonly #open = new Set<Connection>();
  #stallsNew = false;

  constructor(hostname: string, port: number, private readonly behind: number) {
    this.#listener = Deno.listen({ hostname, port });
    this.port = this.#listener.addr.port;
    void this.#accept();
  }

  get open(): number {
    return this.#open.size;
  }

  closeAll(): void {
    for (const connection of this.#open) connection.close();
  }

  /** From now on nothing passes on the open connections, and with `newOnes` on those to come. */
  stall(newOnes: boolean): void {
    this.#stallsNew = newOnes;
    for (const connection of this.#open) connection.stall();
  }

  /** What was held back passes, and everything after it. */
  resume(): void {
    this.#stallsNew = false;
    for (const connection of this.#open) connection.resume();
  }

  async #accept(): Promise<void> {
    for await (const client of this.#listener) {
      this.accepted.push(Date.now());
      this.#connect(client).catch(() => client.close());
    }
  }

  async #connect(client: Deno.TcpConn): Promise<void> {
    const server = await Deno.connect({ hostname: "127.0.0.1", port: this.behind });
    server.setNoDelay();
    client.setNoDelay();
    const connection = new Connection(client, server);
    if (this.#stallsNew) connection.stall();
    this.#open.add(connection);
    await connection.run();
    this.#open.delete(connection);
  }
}

class Connection {
  #passes: Promise<void> = Promise.resolve();
  /** While it stalls. */
  #resume?: () => void;
  #isClosed = false;

  constructor(private readonly client: Deno.TcpConn, private readonly server: Deno.TcpConn) {}

  async run(): Promise<void> {
    await Promise.allSettled([
      this.#pump(this.client, this.server),
      this.#pump(this.server, this.client),
    ]);
    this.close();
  }

  stall(): void {
    if (this.#resume !== undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#passes = promise;
    this.#resume = resolve;
  }

  resume(): void {
    this.#resume?.();
    this.#resume = undefined;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.resume();
    this.client.close();
    this.server.close();
  }

  async #pump(from: Deno.TcpConn, to: Deno.TcpConn): Promise<void> {
    const buffer = new Uint8Array(65_536);
    try {
      for (let count; (count = await from.read(buffer)) !== null;) {
        await this.#passes;
        for (let at = 0; at < count;) at += await to.write(buffer.subarray(at, count));
      }
      await this.#passes;
      await to.closeWrite();
    } catch {
      this.close(); // One side is gone: so is the other.
    }
  }
}
