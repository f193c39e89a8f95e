import { type ListenAddress, serveHttp } from "../listen_address.ts";

/** What kubelet and Prometheus ask an agent. */
export interface ProbeSources {
  /** Why the agent should be restarted; undefined while it is well. */
  readonly sick: () => Promise<string | undefined>;
  /** Why the agent does not do its work yet; undefined when it does. */
  readonly notReady: () => string | undefined;
  readonly metrics: () => Promise<{ readonly contentType: string; readonly text: string }>;
}

/** Serves `/healthz`, `/readyz` and `/metrics`. */
export function serveProbes(address: ListenAddress, sources: ProbeSources): Deno.HttpServer {
  return serveHttp(address, async (request) => {
    switch (new URL(request.url).pathname) {
      case "/healthz":
        return verdict(await sources.sick());
      case "/readyz":
        return verdict(sources.notReady());
      case "/metrics": {
        const { contentType, text } = await sources.metrics();
        return new Response(text, { headers: { "content-type": contentType } });
      }
      default:
        return new Response("not found\n", { status: 404 });
    }
  });
}

function verdict(problem: string | undefined): Response {
  return problem === undefined
    ? new Response("ok\n")
    : new Response(`${problem}\n`, { status: 503 });
}
