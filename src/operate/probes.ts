import { type Answer, HttpServer } from "../http_server.ts";
import { listen, type ListenAddress } from "../listen_address.ts";

/** What kubelet and Prometheus ask an agent. */
export interface ProbeSources {
  /** Why the agent should be restarted; undefined while it is well. */
  readonly sick: () => Promise<string | undefined>;
  /** Why the agent does not do its work yet; undefined when it does. */
  readonly notReady: () => string | undefined;
  /** Undefined while there are none. */
  readonly metrics: () => Promise<
    { readonly contentType: string; readonly text: string } | undefined
  >;
}

/** Serves `/healthz`, `/readyz` and `/metrics`. */
export function serveProbes(
  address: ListenAddress,
  { sick, notReady, metrics }: ProbeSources,
): HttpServer {
  return new HttpServer(listen(address), {
    "/healthz": shared(async () => verdict(await sick())),
    "/readyz": () => verdict(notReady()),
    "/metrics": shared(async () => await metrics() ?? verdict("standing by for another agent")),
  });
}

/**
 * The same answer for all who ask while one is made, and for some time behind it: however many
 * strangers ask, making answers (each worker is asked) takes no more than a tenth of the time.
 */
function shared(answer: () => Promise<Answer>): () => Promise<Answer> {
  let last: Promise<Answer> | undefined;
  let until = 0;
  return () => {
    const began = performance.now();
    if (last !== undefined && began < until) return last;
    until = Infinity;
    return last = answer().finally(() => {
      const now = performance.now();
      until = now + 9 * (now - began);
    });
  };
}

function verdict(problem: string | undefined): Answer {
  return problem === undefined ? { text: "ok\n" } : { status: 503, text: `${problem}\n` };
}
