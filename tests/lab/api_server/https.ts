import { once } from "node:events";
import { createServer, type ServerOptions } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/**
 * Serves HTTPS on loopback and returns the port. By node:https: Deno.serve leaves Nagle's algorithm
 * on under TLS, which delays every answer by 40 ms; no API server does that.
 */
export async function serveHttps(
  credentials: { cert: string; key: string },
  handle: (request: Request) => Promise<Response>,
): Promise<number> {
  const options: ServerOptions = { ...credentials, noDelay: true, keepAliveTimeout: 120_000 };
  const server = createServer(options, (incoming, outgoing) => {
    answer(incoming, outgoing, handle).catch(() => outgoing.destroy()); // as a connection that is cut
  });
  server.timeout = 0;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

async function answer(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  handle: (request: Request) => Promise<Response>,
): Promise<void> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of incoming) chunks.push(chunk);
  const gone = new AbortController();
  outgoing.on("close", () => gone.abort());
  const headers = new Headers();
  for (const [name, value] of Object.entries(incoming.headers)) {
    headers.set(name, [value].flat().join(", "));
  }
  const response = await handle(
    new Request(`https://localhost${incoming.url}`, {
      method: incoming.method,
      headers,
      signal: gone.signal,
      ...(chunks.length === 0 ? {} : { body: new Blob(chunks as BlobPart[]) }),
    }),
  );
  outgoing.writeHead(response.status, Object.fromEntries(response.headers));
  outgoing.flushHeaders();
  // Ends the body with its client: a watch may have nothing to say for long, and be none any more.
  const body = response.body?.pipeThrough(new TransformStream(), { signal: gone.signal });
  for await (const chunk of body ?? []) {
    if (!outgoing.write(chunk)) {
      await Promise.race([once(outgoing, "drain"), once(outgoing, "close")]);
    }
  }
  outgoing.end();
}
