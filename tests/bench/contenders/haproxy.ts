import type { Certificates } from "./certificates.ts";
import { type Contender, type Pair, plainPort, PORTS, tlsPort } from "./contender.ts";
import { openPair } from "./proxy_pair.ts";

/** A pair of haproxys, which resume TLS sessions (as they do by default) or never do. */
export async function openHaproxy(
  directory: string,
  certificates: Certificates,
  [client, server]: Pair,
  resumes: boolean,
): Promise<Contender> {
  const tls = `crt ${certificates.both} ca-file ${certificates.ca} verify required`;
  const serverFile = `${directory}/${server.name}.cfg`;
  const clientFile = `${directory}/${client.name}.cfg`;
  await Deno.writeTextFile(
    serverFile,
    COMMON + PORTS.map((port) => `
listen tls-${port}
  bind :${tlsPort(port)} ssl ${tls} curves X25519 ${resumes ? "" : "no-tls-tickets"}
  server app ${server.ipv4}:${port}
`).join(""),
  );
  await Deno.writeTextFile(
    clientFile,
    COMMON + PORTS.map((port) => `
listen plain-${port}
  bind 127.0.0.1:${plainPort(port)}
  server pod ${server.ipv4}:${tlsPort(port)} ssl ${tls} verifyhost pod ${
      resumes ? "" : "no-ssl-reuse"
    }
`).join(""),
  );
  return await openPair({
    name: resumes ? "haproxy-resumed" : "haproxy",
    client,
    server,
    clientCommand: ["haproxy", "-db", "-q", "-f", clientFile],
    serverCommand: ["haproxy", "-db", "-q", "-f", serverFile],
  });
}

/** It sets TCP_NODELAY by itself, and logs only where it is told to. */
const COMMON = `
global
  nbthread 2
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
defaults
  mode tcp
  timeout connect 10s
  timeout client 120s
  timeout server 120s
  option tcp-smart-connect
  maxconn 9000
`;
