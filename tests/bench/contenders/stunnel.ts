import type { Pod } from "../../lab/pod.ts";
import type { Certificates } from "./certificates.ts";
import { type Contender, type Pair, plainPort, PORTS, tlsPort } from "./contender.ts";
import { openPair } from "./proxy_pair.ts";

/**
 * A pair of stunnels without session resumption. It has a thread for each connection, not two in
 * all.
 */
export async function openStunnel(
  directory: string,
  { chain, key, ca }: Certificates,
  [client, server]: Pair,
): Promise<Contender> {
  const common = `
foreground = yes
syslog = no
debug = emerg
pid =
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
sslVersion = TLSv1.3
ciphersuites = TLS_AES_128_GCM_SHA256
curves = X25519
sessionResume = no
options = NO_TICKET
cert = ${chain}
key = ${key}
CAfile = ${ca}
verifyChain = yes
`;
  const write = async (pod: Pod, sections: string[]) => {
    const file = `${directory}/${pod.name}.stunnel`;
    await Deno.writeTextFile(file, common + sections.join(""));
    return ["stunnel", file];
  };
  return await openPair({
    name: "stunnel",
    client,
    server,
    serverCommand: await write(
      server,
      PORTS.map((port) => `
[tls-${port}]
requireCert = yes
accept = ${tlsPort(port)}
connect = ${server.ipv4}:${port}
`),
    ),
    clientCommand: await write(
      client,
      PORTS.map((port) => `
[plain-${port}]
client = yes
checkHost = pod
accept = 127.0.0.1:${plainPort(port)}
connect = ${server.ipv4}:${tlsPort(port)}
`),
    ),
  });
}
