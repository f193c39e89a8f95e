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
    "/healthz": async () => verdict(await sick()),
    "/readyz": () => verdict(notReady()),
    "/metrics": async () => await metrics() ?? verdict("standing by for another agent"),
  });
}

function verdict(problem: string | undefined): Answer {
  return problem === undefined ? { text: "ok\n" } : { status: 503, text: `${problem}\n` };
}
