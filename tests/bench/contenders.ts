import { Lab } from "../lab/lab.ts";
import type { Pod } from "../lab/pod.ts";

/** The applications' ports, the same for all. */
export const BULK_PORT = 5201;
export const HTTP_PORT = 8080;

/** One way from a client pod to a server pod: what is compared. */
export interface Contender {
  readonly name: string;
  readonly client: Pod;
  readonly server: Pod;
  /** Where the client's application connects to. */
  address(port: number): { host: string; port: number };
}

/** Direct, kube-gateway and an haproxy pair: the same topology, two pods on two nodes each. */
export async function openContenders(lab: Lab): Promise<Contender[]> {
  const names = ["direct", "gateway", "haproxy", "resumed"];
  const pods = await lab.addPods(names.flatMap((name) => [
    { name: `${name}-client`, node: "node-a", annotation: name === "gateway" ? "true" : undefined },
    { name: `${name}-server`, node: "node-b", annotation: name === "gateway" ? "true" : undefined },
  ]));
  const pod = (name: string): Pod => {
    const found = pods.find((each) => each.name === name);
    if (found === undefined) throw new Error(`no pod ${name}`);
    return found;
  };
  await Promise.all(lab.nodes.map(({ name }) => lab.startAgent(name)));
  for (const side of ["client", "server"]) await lab.waitEnrolled(pod(`gateway-${side}`));
  await writeCertificates(lab.temporary);
  await Deno.writeTextFile(`${lab.temporary}/nginx.conf`, NGINX);
  for (const name of names) {
    pod(`${name}-server`).spawn(["iperf3", "-s", "-p", String(BULK_PORT)]);
    pod(`${name}-server`).spawn([
      ...["nginx", "-c", `${lab.temporary}/nginx.conf`, "-e", "/dev/null"],
      ...["-g", `pid ${lab.temporary}/${name}.pid;`],
    ]);
  }
  const through = (name: string): Contender => {
    const [client, server] = [pod(`${name}-client`), pod(`${name}-server`)];
    return { name, client, server, address: (port) => ({ host: server.ipv4 ?? "", port }) };
  };
  return [
    through("direct"),
    through("gateway"),
    await haproxyPair(lab.temporary, through("haproxy"), "no-tls-tickets", "no-ssl-reuse"),
    await haproxyPair(lab.temporary, { ...through("resumed"), name: "haproxy, resumed" }, "", ""),
  ];
}

/** TLS 1.3, P-256, mutual, AES-128-GCM, nodelay, two threads, no logs: as the gateway does it. */
async function haproxyPair(
  directory: string,
  contender: Contender,
  bindOption: string,
  serverOption: string,
): Promise<Contender> {
  const { client, server } = contender;
  const common = `
global
  nbthread 2
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
defaults
  mode tcp
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  option tcp-smart-connect
  maxconn 10000
`;
  const tls =
    `crt ${directory}/pod.pem ca-file ${directory}/ca.crt verify required ssl-min-ver TLSv1.3`;
  const ports = [BULK_PORT, HTTP_PORT];
  const write = async (side: string, sections: string[]) => {
    const file = `${directory}/${contender.client.name}-${side}.cfg`;
    await Deno.writeTextFile(file, common + sections.join("\n"));
    return file;
  };
  const serverFile = await write(
    "server",
    ports.map((port) => `
listen tls-${port}
  bind :${port + 10000} ssl ${tls} ${bindOption}
  server app ${server.ipv4}:${port}
`),
  );
  const clientFile = await write(
    "client",
    ports.map((port) => `
listen plain-${port}
  bind 127.0.0.1:${port + 20000}
  server pod ${server.ipv4}:${port + 10000} ssl ${tls} verifyhost pod ${serverOption}
`),
  );
  server.spawn(["haproxy", "-f", serverFile]);
  client.spawn(["haproxy", "-f", clientFile]);
  return { ...contender, address: (port) => ({ host: "127.0.0.1", port: port + 20000 }) };
}

async function writeCertificates(directory: string): Promise<void> {
  const script = `
    cd ${directory}
    new="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    openssl req -x509 $new -keyout ca.key -out ca.crt -days 2 -subj /CN=ca
    openssl req $new -keyout pod.key -out pod.csr -subj /CN=pod
    openssl x509 -req -in pod.csr -CA ca.crt -CAkey ca.key -days 2 -out pod.crt -extfile /dev/stdin <<X
subjectAltName = DNS:pod
X
    cat pod.crt pod.key > pod.pem`;
  const { success, stderr } = await new Deno.Command("sh", { args: ["-ec", script] }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}

const NGINX = `
daemon off;
worker_processes 1;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 100000000;
  server {
    listen ${HTTP_PORT} backlog=4096 reuseport;
    listen [::]:${HTTP_PORT} backlog=4096 reuseport;
    location / { return 200 "${"x".repeat(64)}"; }
  }
}
`;
