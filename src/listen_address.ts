/** Where a server listens. */
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

/** Listens there. Throws an Error that says where when it cannot. */
export function listen({ hostname, port }: ListenAddress): Deno.TcpListener {
  try {
    if (hostname !== undefined) return Deno.listen({ hostname, port });
    try {
      return Deno.listen({ hostname: "::", port }); // takes IPv4, too (ipv6(7), IPV6_V6ONLY)
    } catch (error) {
      if (error instanceof Deno.errors.AddrInUse) throw error;
      return Deno.listen({ hostname: "0.0.0.0", port }); // a kernel without IPv6
    }
  } catch (cause) {
    throw new Error(`cannot listen on ${hostname ?? ""}:${port}: ${cause}`, { cause });
  }
}
