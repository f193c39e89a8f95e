import { errorText } from "./error_text.ts";
import { logger } from "./log.ts";

const log = logger("http");

/** What a path answers. */
export interface Answer {
  /** 200 when not given. */
  readonly status?: number;
  /** Plain text when not given. */
  readonly contentType?: string;
  readonly text: string;
}

/** By path. One that throws is answered with 500 and its message. */
export type Answers = Readonly<Record<string, () => Answer | Promise<Answer>>>;

/**
 * How many connections there are at once: the next one takes the place of one of whoever has most
 * of them, of the oldest that has not asked yet, or of the oldest.
 */
export const MOST_CONNECTIONS = 1_000;

/**
 * From the connection to the end of the request's head, and from there to the last byte of the
 * answer.
 */
const REQUEST_MILLISECONDS = 5_000;
const ANSWER_MILLISECONDS = 60_000;

/** A request's head is a line and what a scraper says of itself. */
const MOST_BYTES = 4_096;

/** How long accepting rests when the process or the node is out of descriptors. */
const REST_MILLISECONDS = 100;

/**
 * A server for probes, metrics and the admin socket: answers GET, one request a connection. Whoever
 * can connect cannot end it, nor keep others out: connections are bounded in number and time, an
 * honest one lasts some milliseconds, and an accept that fails is tried again. (Deno.serve has no
 * such bounds and ends the process when descriptors run out; node:http's server never accepts
 * again.)
 */
export class HttpServer implements Disposable {
  /** Those that have not asked yet, and all of them by client; the oldest first. */
  readonly #silent = new Set<Deno.Conn>();
  readonly #clients = new Map<string, Set<Deno.Conn>>();
  #count = 0;
  readonly #paths: ReadonlyMap<string, () => Answer | Promise<Answer>>;
  #closed = false;
  #rest: { readonly timer: ReturnType<typeof setTimeout>; readonly end: () => void } | undefined;

  /** Takes the listener over. */
  constructor(readonly listener: Deno.Listener, answers: Answers) {
    this.#paths = new Map(Object.entries(answers));
    void this.#accept();
  }

  /** Accepts no more, and cuts off who is still here. */
  [Symbol.dispose](): void {
    this.#closed = true;
    this.#rest?.end();
    this.listener.close();
    for (const connections of this.#clients.values()) {
      for (const connection of connections) this.#close(connection);
    }
  }

  async #accept(): Promise<void> {
    for (let failed = false; !this.#closed;) {
      try {
        const connection = await this.listener.accept();
        failed = false;
        if (this.#count >= MOST_CONNECTIONS) await this.#makeRoom();
        if (this.#closed) return connection.close();
        this.#open(connection);
        void this.#serve(connection);
      } catch (error) {
        if (this.#closed) return;
        if (!failed) log.warn("accepting pauses: {error}", { error: errorText(error) });
        failed = true;
        this.#closeOldest(); // which leaves room for the next, if descriptors are what is short
        await this.#pause();
      }
    }
  }

  /**
   * For many at once, after a turn for what has been read already: who has asked must not be taken
   * for silent.
   */
  async #makeRoom(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, 0));
    while (this.#count > 0.9 * MOST_CONNECTIONS) this.#closeOldest();
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#rest = undefined;
        resolve();
      };
      const timer = setTimeout(end, REST_MILLISECONDS);
      this.#rest = { timer, end };
    });
  }

  async #serve(connection: Deno.Conn): Promise<void> {
    let timer = setTimeout(() => this.#close(connection), REQUEST_MILLISECONDS);
    try {
      const head = await readHead(connection);
      if (head === undefined || !this.#silent.delete(connection)) return;
      clearTimeout(timer);
      timer = setTimeout(() => this.#close(connection), ANSWER_MILLISECONDS);
      await writeAll(connection, encode(await this.#answer(head)));
    } catch {
      // The client has gone, or was cut off.
    } finally {
      clearTimeout(timer);
      this.#close(connection);
    }
  }

  async #answer(head: string): Promise<Answer> {
    const [, method, target = ""] = /^([A-Z]+) ([!-~]+) HTTP\/1\.[01]\r\n/.exec(head) ?? [];
    const path = URL.parse(target, "http://localhost")?.pathname;
    if (method === undefined || path === undefined) return { status: 400, text: "not HTTP/1.1\n" };
    if (method !== "GET") return { status: 405, text: "only GET\n" };
    const answer = this.#paths.get(path);
    if (answer === undefined) return { status: 404, text: "not found\n" };
    try {
      return await answer();
    } catch (error) {
      return { status: 500, text: `${errorText(error)}\n` };
    }
  }

  #closeOldest(): void {
    let most = new Set<Deno.Conn>();
    for (const connections of this.#clients.values()) {
      if (connections.size > most.size) most = connections;
    }
    const [oldest] = most;
    const silent = most.values().find((connection) => this.#silent.has(connection)) ?? oldest;
    if (silent !== undefined) this.#close(silent);
  }

  #open(connection: Deno.Conn): void {
    const client = clientOf(connection);
    this.#clients.set(client, (this.#clients.get(client) ?? new Set()).add(connection));
    this.#silent.add(connection);
    this.#count++;
  }

  #close(connection: Deno.Conn): void {
    const client = clientOf(connection);
    const connections = this.#clients.get(client);
    if (connections?.delete(connection) !== true) return;
    if (connections.size === 0) this.#clients.delete(client);
    this.#silent.delete(connection);
    this.#count--;
    connection.close();
  }
}

/** Its address; the same for all of a unix socket. */
function clientOf({ remoteAddr }: Deno.Conn): string {
  return "hostname" in remoteAddr ? remoteAddr.hostname : "";
}

/** A request's line and fields; undefined when the client ends before, or says too much. */
async function readHead(connection: Deno.Conn): Promise<string | undefined> {
  const bytes = new Uint8Array(MOST_BYTES);
  for (let length = 0; length < MOST_BYTES;) {
    const count = await connection.read(bytes.subarray(length));
    if (count === null) return undefined;
    const fresh = Math.max(0, length - 3); // the end may have come in parts
    length += count;
    const isWhole = decoder.decode(bytes.subarray(fresh, length)).includes("\r\n\r\n");
    if (isWhole) return decoder.decode(bytes.subarray(0, length));
  }
  return undefined;
}

/** Answers that were encoded: one may be given to many. */
const encoded = new WeakMap<Answer, Uint8Array>();

function encode(answer: Answer): Uint8Array {
  const known = encoded.get(answer);
  if (known !== undefined) return known;
  const { status = 200, contentType = "text/plain; charset=utf-8", text } = answer;
  const body = encoder.encode(text);
  const head = encoder.encode(
    [
      `HTTP/1.1 ${status} ${REASONS[status] ?? ""}`,
      `content-type: ${contentType}`,
      `content-length: ${body.length}`,
      ...(status === 405 ? ["allow: GET"] : []),
      "connection: close",
      "\r\n",
    ].join("\r\n"),
  );
  const all = new Uint8Array(head.length + body.length);
  all.set(head);
  all.set(body, head.length);
  encoded.set(answer, all);
  return all;
}

async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let sent = 0; sent < bytes.length;) sent += await connection.write(bytes.subarray(sent));
}

const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  400: "Bad Request",
  404: "Not Found",
  405: "Method Not Allowed",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

const encoder = new TextEncoder();
const decoder = new TextDecoder("latin1");
