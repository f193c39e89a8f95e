import "./no_default_roots.ts"; // before anything makes an HTTP client
import { boundedText } from "./bounded_text.ts";
import { chunksOf } from "./chunks.ts";
import type { ClusterConnection } from "./connection.ts";
import { ApiError, isOutage, NoAnswer } from "./errors.ts";
import { noteGarbage } from "../memory.ts";
import { Pace } from "./pace.ts";
import { Turnstile } from "./turnstile.ts";

/** What a request carries beside its method and path. */
export interface RequestOptions {
  readonly query?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** `application/json` when not given; a patch names its kind here. */
  readonly contentType?: string;
  readonly signal?: AbortSignal;
  /** Until the whole answer must be there: 10 s when not given. */
  readonly timeoutMs?: number;
  /** Of the answer: {@link MAX_OBJECT_BYTES} when not given. */
  readonly maxBytes?: number;
  /** Called with how many characters the answer has, before it is parsed. */
  readonly onLength?: (length: number) => void;
}

/**
 * What one object can have: etcd takes no more than 1.5 MiB of it, in protobuf, where an empty
 * message has two bytes; in JSON its name stands before it, and each byte of a text may be escaped
 * as six.
 */
export const MAX_OBJECT_BYTES = 32 * 2 ** 20;

/**
 * A client of the Kubernetes API on Deno's own fetch, which notices that the server has died
 * (client-node's does not under Deno). All of a process share one: when the server is away,
 * together they ask it no more than {@link MAX_OUTAGE_RATE} times a second.
 */
export class KubernetesApi implements Disposable {
  readonly server: string;
  readonly #connection: ClusterConnection;
  readonly #client: Deno.HttpClient;
  readonly #turnstile = new Turnstile(MAX_CONNECTIONS);
  readonly #pace = new Pace(1000 / MAX_OUTAGE_RATE);
  #heard = performance.now();

  constructor(connection: ClusterConnection) {
    this.#connection = connection;
    this.server = connection.server;
    this.#client = clientOf(connection);
  }

  /** Milliseconds since anything was heard from the API server. */
  get silence(): number {
    return performance.now() - this.#heard;
  }

  /**
   * One request and its whole answer, parsed; undefined when the answer is empty.
   *
   * @throws {ApiError} for an answer that is no success; {@link TooLarge}; else what fetch throws.
   */
  async request(method: string, path: string, options: RequestOptions = {}): Promise<unknown> {
    const { timeoutMs = 10_000, maxBytes = MAX_OBJECT_BYTES } = options;
    const late = new AbortController();
    const timer = setTimeout(
      () => late.abort(new NoAnswer(`no answer to ${method} ${path} in ${timeoutMs / 1000} s`)),
      timeoutMs,
    );
    const signal = options.signal === undefined
      ? late.signal
      : AbortSignal.any([late.signal, options.signal]);
    try {
      using _place = await this.#turnstile.enter(signal);
      return await this.#pace.run(async () => {
        const response = await this.#fetch(method, path, options, signal);
        const text = await boundedText(response, signal, maxBytes, `${method} ${path}`);
        this.#heard = performance.now();
        options.onLength?.(text.length);
        noteGarbage(text.length);
        return text === "" ? undefined : JSON.parse(text);
      }, signal);
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * The body of a GET as it comes, without a timeout: a watch. The signal ends it.
   *
   * @param accepted is called when the server has begun to answer with success.
   * @throws {ApiError} for an answer that is no success; else what fetch throws.
   */
  async *stream(
    path: string,
    query: Readonly<Record<string, string>>,
    signal: AbortSignal,
    accepted?: () => void,
  ): AsyncGenerator<Uint8Array> {
    const response = await this.#pace.run(
      () => this.#fetch("GET", path, { query }, signal),
      signal,
    );
    accepted?.();
    try {
      for await (const chunk of chunksOf(response, signal)) {
        this.#heard = performance.now();
        yield chunk;
      }
    } catch (error) {
      // A watch that broke is begun again at the pace: all watches are cut at once when a server
      // dies.
      if (!signal.aborted) this.#pace.failed(error);
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }

  async #fetch(
    method: string,
    path: string,
    { query, body, contentType = "application/json" }: RequestOptions,
    signal: AbortSignal,
  ): Promise<Response> {
    const token = await this.#connection.token?.();
    const response = await fetch(
      `${this.server}${path}${query === undefined ? "" : `?${new URLSearchParams(query)}`}`,
      {
        method,
        signal,
        client: this.#client,
        redirect: "error", // an API server does not redirect; whoever does gets no token
        headers: {
          accept: "application/json",
          "user-agent": "kube-gateway",
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined ? {} : { "content-type": contentType }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      },
    );
    if (response.ok) {
      this.#heard = performance.now();
      return response;
    }
    const what = `${method} ${path}`;
    const error = errorOf(
      response,
      await boundedText(response, signal, MAX_OBJECT_BYTES, what),
      what,
    );
    // An overloaded server has answered too, but nothing that it said before is up to date by that.
    if (!isOutage(error)) this.#heard = performance.now();
    throw error;
  }
}

/** What can be asked of an API server, without what ends the client. */
export type ApiClient = Pick<KubernetesApi, "request" | "stream">;

/** Single questions only. */
export type ApiRequests = Pick<KubernetesApi, "request">;

/** A burst of requests shares few connections: a TLS handshake costs more than a short wait. */
const MAX_CONNECTIONS = 6;

/**
 * MAX_OUTAGE_RATE is for all of a process while the server is away: half of what an agent is
 * allowed, because fetch retries by itself.
 */
export const MAX_OUTAGE_RATE = 2.5;

/** @throws {Error} when a certificate or key of the connection cannot be used. */
function clientOf({ server, certificateAuthority, clientCertificate }: ClusterConnection) {
  try {
    return Deno.createHttpClient({
      // Not HTTP/2: there all requests wait when packets are dropped on their one connection, until
      // the kernel gives it up after 15 minutes; and each with a body waits 40 ms, since Deno
      // leaves Nagle's algorithm on.
      http2: false,
      poolIdleTimeout: 15_000, // for the same first reason
      caCerts: [certificateAuthority],
      ...(clientCertificate === undefined
        ? {}
        : { cert: clientCertificate.certificate, key: clientCertificate.key }),
    });
  } catch (cause) {
    throw new Error(`cannot use the CA or the client certificate for ${server}`, { cause });
  }
}

function errorOf(response: Response, text: string, what: string): ApiError {
  const status = statusOf(text);
  const retryAfter = Number(response.headers.get("retry-after") ?? NaN);
  return new ApiError(
    response.status,
    status.reason,
    `${what}: ${response.status} ${status.message.slice(0, 500)}`,
    Number.isFinite(retryAfter) ? retryAfter : undefined,
  );
}

/** Of a meta/v1 Status; what is none (a proxy's page) is taken as it is. */
function statusOf(text: string): { reason: string; message: string } {
  try {
    const { reason, message } = JSON.parse(text) as Record<string, unknown>;
    return { reason: String(reason ?? ""), message: String(message ?? reason ?? "") };
  } catch {
    return { reason: "", message: text.replace(/\s+/g, " ") };
  }
}
