/** Where an HTTP server listens. */
export interface ListenAddress {
  /** Undefined: on all addresses, of both families where the machine has both. */
  readonly hostname: string | undefined;
  readonly port: number;
}

/** `HOST:PORT`, IPv6 in brackets, or `:PORT` for all addresses; undefined for anything else. */
export function parseListenAddress(text: string): ListenAddress | undefined {
  const [, host, port] = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]*):(\d{1,5})$/.exec(text) ?? [];
  if (host === undefined || Number(port) > 65_535) return undefined;
  return {
    hostname: host === "" ? undefined : host.replace(/^\[|\]$/g, ""),
    port: Number(port),
  };
}

/** Serves HTTP there; a handler that throws is answered with 500 and its message. */
export function serveHttp(
  { hostname, port }: ListenAddress,
  handle: (request: Request) => Response | Promise<Response>,
): Deno.HttpServer {
  const serve = (hostname: string) =>
    Deno.serve({
      hostname,
      port,
      onListen: () => {},
      onError: (error) => new Response(`${error}\n`, { status: 500 }),
    }, handle);
  if (hostname !== undefined) return serve(hostname);
  try {
    return serve("::"); // takes IPv4, too (ipv6(7), IPV6_V6ONLY)
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) throw error;
    return serve("0.0.0.0"); // a kernel without IPv6
  }
}
