import type { Pod } from "../../lab/pod.ts";
import type { Certificates } from "./certificates.ts";
import { type Contender, type Pair, plainPort, PORTS, tlsPort } from "./contender.ts";
import { openPair } from "./proxy_pair.ts";

/** A pair of nginx with its stream module, without session resumption. */
export async function openNginx(
  directory: string,
  { chain, key, ca }: Certificates,
  [client, server]: Pair,
): Promise<Contender> {
  const serverSections = PORTS.map((port) => `
  server {
    listen ${tlsPort(port)} ssl backlog=4096 reuseport;
    ssl_certificate ${chain};
    ssl_certificate_key ${key};
    ssl_client_certificate ${ca};
    ssl_verify_client on;
    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    ssl_ecdh_curve X25519;
    ssl_session_cache off;
    ssl_session_tickets off;
    proxy_pass ${server.ipv4}:${port};
  }`);
  const clientSections = PORTS.map((port) => `
  server {
    listen 127.0.0.1:${plainPort(port)} backlog=4096 reuseport;
    proxy_ssl on;
    proxy_ssl_certificate ${chain};
    proxy_ssl_certificate_key ${key};
    proxy_ssl_trusted_certificate ${ca};
    proxy_ssl_verify on;
    proxy_ssl_name pod;
    proxy_ssl_protocols TLSv1.3;
    proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    proxy_ssl_session_reuse off;
    proxy_pass ${server.ipv4}:${tlsPort(port)};
  }`);
  const command = async (pod: Pod, sections: string[]) => {
    const file = `${directory}/${pod.name}.conf`;
    await Deno.writeTextFile(file, configuration(`${directory}/${pod.name}.pid`, sections));
    return ["nginx", "-e", "/dev/null", "-c", file];
  };
  return await openPair({
    name: "nginx",
    client,
    server,
    clientCommand: await command(client, clientSections),
    serverCommand: await command(server, serverSections),
  });
}

/** TCP_NODELAY is the stream module's default. */
function configuration(pidFile: string, sections: string[]): string {
  return `
load_module modules/ngx_stream_module.so;
daemon off;
pid ${pidFile};
worker_processes 2;
error_log stderr emerg;
events { worker_connections 20000; }
stream {
  access_log off;
  tcp_nodelay on;
  proxy_timeout 120s;${sections.join("")}
}
`;
}
