import { delay } from "../delay.ts";
import { gone, StatusError } from "./status.ts";

/** What the server is to do wrong, to which requests. What is not given applies to all. */
export interface Misbehaviour {
  /** A regular expression that path and query must match. */
  path?: string;
  /** "get", "list", "watch", "create", … */
  verb?: string;
  user?: string;
  /** The next so many requests; all from now on when not given. */
  times?: number;
  /** The share of requests that it hits, 0 to 1. */
  fraction?: number;

  /** Wait so long before anything else. */
  delayMs?: number;
  /** Answer with this HTTP status instead of doing it; 410 as a list or watch would. */
  status?: number;
  /** Seconds, as a header of the answer. */
  retryAfter?: number;
  /** Never answer, and keep the connection open. */
  silent?: boolean;
  /** Send so many bytes of the body, and no more. */
  cutAfterBytes?: number;
  /** How it is cut: by a reset (as when not given), or by an end that looks proper. */
  cutBy?: "reset" | "end" | "silence";
  /** Send this first in the body; a line needs its own newline. */
  garbage?: string;
  /** Answer with 200 and an ERROR event of code 410. */
  goneEvent?: boolean;
  /** Leave bookmarks out of watches. */
  dropBookmarks?: boolean;
}

type Bytes = Uint8Array<ArrayBuffer>;

/** What a misbehaviour may look at. */
export interface Asked {
  readonly path: string;
  readonly verb: string;
  readonly user: string;
}

/** The misbehaviours that are asked for, and how often each is still to happen. */
export class Misbehaviours {
  #all: { id: number; what: Misbehaviour; left: number }[] = [];
  #next = 1;

  add(what: Misbehaviour): number {
    this.#all.push({ id: this.#next, what, left: what.times ?? Infinity });
    return this.#next++;
  }

  /** Ends one, or all. */
  end(id?: number): void {
    this.#all = id === undefined ? [] : this.#all.filter((one) => one.id !== id);
  }

  /** Those that a request is to get, each counted as done. */
  take(asked: Asked): Misbehaviour[] {
    const hit = this.#all.filter(({ what, left }) =>
      left > 0 && matches(what, asked) && Math.random() < (what.fraction ?? 1)
    );
    for (const one of hit) one.left--;
    return hit.map(({ what }) => what);
  }
}

/**
 * What happens before the request is looked at. @throws {StatusError} the answer instead of one.
 */
export async function misbehaveBefore(all: readonly Misbehaviour[]): Promise<void> {
  for (const { delayMs, silent, status, retryAfter } of all) {
    if (delayMs !== undefined) await delay(delayMs);
    if (silent) await new Promise<never>(() => {});
    if (status !== undefined) throw failureOf(status, retryAfter);
  }
}

/** What happens to an answer. */
export function misbehaveAfter(all: readonly Misbehaviour[], response: Response): Response {
  if (response.body === null) return response;
  let body: ReadableStream<Bytes> = response.body;
  for (const { cutAfterBytes, cutBy = "reset", garbage, goneEvent, dropBookmarks } of all) {
    if (dropBookmarks) body = body.pipeThrough(withoutBookmarks());
    if (garbage !== undefined) body = prefixed(garbage, body);
    if (goneEvent) {
      const { status } = gone("too old resource version: 1 (2)");
      void body.cancel();
      body = new Response(`${JSON.stringify({ type: "ERROR", object: status })}\n`).body ?? body;
    }
    if (cutAfterBytes !== undefined) body = cut(body, cutAfterBytes, cutBy);
  }
  return body === response.body
    ? response
    : new Response(body, { status: response.status, headers: response.headers });
}

function matches({ path, verb, user }: Misbehaviour, asked: Asked): boolean {
  return (path === undefined || new RegExp(path).test(asked.path)) &&
    (verb ?? asked.verb) === asked.verb && (user ?? asked.user) === asked.user;
}

function failureOf(status: number, retryAfter: number | undefined): StatusError {
  if (status === 410) return gone("too old resource version: 1 (2)");
  const [reason, message] = REASONS[status] ?? ["InternalError", "an error on the server"];
  const headers: Record<string, string> = retryAfter === undefined
    ? {}
    : { "retry-after": `${retryAfter}` };
  const details = retryAfter === undefined ? undefined : { retryAfterSeconds: retryAfter };
  return new StatusError(status, reason, message, details, headers);
}

const REASONS: Record<number, [reason: string, message: string]> = {
  401: ["Unauthorized", "Unauthorized"],
  403: ["Forbidden", "forbidden by the test"],
  429: ["TooManyRequests", "too many requests, please try again later"],
  500: ["InternalError", "Internal error occurred: the test wants it so"],
  503: ["ServiceUnavailable", "the server is currently unable to handle the request"],
  504: ["Timeout", "Timeout: request did not complete within requested timeout"],
};

/**
 * Long enough that what was sent before has gone out: a reset overtakes what is still in a buffer.
 */
const FLUSH_MS = 30;

function cut(
  body: ReadableStream<Bytes>,
  bytes: number,
  by: "reset" | "end" | "silence",
): ReadableStream<Bytes> {
  const reader = body.getReader();
  let left = bytes;
  return new ReadableStream({
    async pull(controller) {
      if (left > 0) {
        const { value, done } = await reader.read();
        if (done) return controller.close();
        controller.enqueue(value.slice(0, left));
        left -= Math.min(left, value.length);
        if (left > 0) return;
      }
      if (by === "silence") return await new Promise<never>(() => {});
      await delay(FLUSH_MS);
      void reader.cancel();
      if (by === "end") controller.close();
      else controller.error(new Error("The answer was to be cut off"));
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

function prefixed(text: string, body: ReadableStream<Bytes>): ReadableStream<Bytes> {
  return body.pipeThrough(
    new TransformStream<Bytes, Bytes>({
      start: (controller) => controller.enqueue(new TextEncoder().encode(text)),
    }),
  );
}

/** A watch enqueues whole lines, so a chunk is one. */
function withoutBookmarks(): TransformStream<Bytes, Bytes> {
  const prefix = '{"type":"BOOKMARK"';
  return new TransformStream({
    transform(chunk, controller) {
      const start = new TextDecoder().decode(chunk.subarray(0, prefix.length));
      if (start !== prefix) controller.enqueue(chunk);
    },
  });
}
