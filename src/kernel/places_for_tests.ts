import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmdirSync } from "node:fs";
import { cgroup2Mount } from "../cgroup_mount.ts";
import { NetworkNamespace } from "../native/namespace.ts";

/** Runs a test with a cgroup in which nothing runs. */
export async function withCgroup(use: (cgroup: string) => void | Promise<void>): Promise<void> {
  const mount = cgroup2Mount(readFileSync("/proc/self/mountinfo", "utf8"));
  const cgroup = mkdtempSync(`${mount}/kgw-test-`);
  try {
    await use(cgroup);
  } finally {
    rmdirSync(cgroup);
  }
}

/** A network namespace of the test's own. */
export interface TestNamespace {
  readonly name: string;
  readonly namespace: NetworkNamespace;
  readonly ipv4: string;
  readonly ipv6: string;
}

/** Runs a test with two namespaces and a cable between their `eth0`. */
export async function withNamespaces(
  use: (one: TestNamespace, other: TestNamespace) => void | Promise<void>,
): Promise<void> {
  const names = ["a", "b"].map((letter) => `kgw-test-${Deno.pid}-${letter}`);
  const [a = "", b = ""] = names;
  try {
    for (const name of names) await run("ip", "netns", "add", name);
    await run(
      ...["ip", "-netns", a, "link", "add", "eth0", "type", "veth"],
      ...["peer", "name", "eth0", "netns", b],
    );
    for (const [index, name] of names.entries()) {
      for (const link of ["lo", "eth0"]) await run("ip", "-netns", name, "link", "set", link, "up");
      for (const address of [`10.97.0.${index + 1}/24`, `fd97::${index + 1}/64`]) {
        await run("ip", "-netns", name, "address", "add", address, "dev", "eth0", "nodad");
      }
    }
    using one = NetworkNamespace.open(`/run/netns/${a}`);
    using other = NetworkNamespace.open(`/run/netns/${b}`);
    await use(
      { name: a, namespace: one, ipv4: "10.97.0.1", ipv6: "fd97::1" },
      { name: b, namespace: other, ipv4: "10.97.0.2", ipv6: "fd97::2" },
    );
  } finally {
    for (const name of names) await run("ip", "netns", "delete", name);
  }
}

export async function run(...command: string[]): Promise<string> {
  const [file = "", ...args] = command;
  const { success, stdout, stderr } = await new Deno.Command(file, { args }).output();
  assert.equal(success, true, `${command.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

/** Answers with what it is sent: TCP and UDP, both families, on these ports. Says "ready". */
const ECHO = `
import select, socket, sys
poll, sockets = select.poll(), {}
def add(s): sockets[s.fileno()] = s; poll.register(s, select.POLLIN)
for port in map(int, sys.argv[1:]):
    t = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True); add(t)
    u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(("::", port)); add(u)
listening = set(sockets)
print("ready", flush=True)
while True:
    for number, _ in poll.poll():
        s = sockets[number]
        if s.type == socket.SOCK_DGRAM: data, peer = s.recvfrom(65536); s.sendto(data, peer)
        elif number in listening: add(s.accept()[0])
        else:
            try: data = s.recv(65536)
            except OSError: data = b""
            if data: s.sendall(data)
            else: poll.unregister(s); del sockets[number]; s.close()
`;

/** One command a line; answers each with one line. */
const CLIENT = `
import socket, sys
sockets = {}
def connect(name, kind, host, port, seconds):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, getattr(socket, "SOCK_" + kind))
    s.settimeout(float(seconds)); s.connect((host, int(port))); sockets[name] = s
    return str(s.getsockname()[1])
def talk(name, count, seconds):
    s = sockets[name]; s.settimeout(float(seconds)); s.sendall(b"x" * int(count)); left = int(count)
    while left > 0: left -= len(s.recv(65536))
    return "echo"
print("ready", flush=True)
for line in sys.stdin:
    verb, *words = line.split()
    try: answer = {"connect": connect, "talk": talk}[verb](*words)
    except OSError as error: answer = type(error).__name__
    print(answer, flush=True)
`;

/** A process in a namespace and, if one is named, in a cgroup, that is spoken to by lines. */
export class TestProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reader: ReadableStreamDefaultReader<string>;
  #rest = "";

  private constructor(place: TestNamespace, cgroup: string | undefined, python: string[]) {
    const join = cgroup === undefined ? "" : `echo $$ > ${cgroup}/cgroup.procs; `;
    this.#child = new Deno.Command("bash", {
      args: ["-c", `${join}exec ip netns exec ${place.name} python3 -uc "$@"`, "bash", ...python],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#reader = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  static async echo(place: TestNamespace, cgroup: string | undefined, ports: readonly number[]) {
    const server = new TestProcess(place, cgroup, [ECHO, ...ports.map(String)]);
    assert.equal(await server.#line(), "ready");
    return server;
  }

  static async client(place: TestNamespace, cgroup: string | undefined) {
    const client = new TestProcess(place, cgroup, [CLIENT]);
    assert.equal(await client.#line(), "ready");
    return client;
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** The local port, or the name of the error. */
  connect(name: string, host: string, port: number, seconds = 5): Promise<string> {
    return this.#ask(`connect ${name} STREAM ${host} ${port} ${seconds}`);
  }

  /** The same for UDP. */
  connectUdp(name: string, host: string, port: number): Promise<string> {
    return this.#ask(`connect ${name} DGRAM ${host} ${port} 5`);
  }

  /** Sends so many bytes and waits for them to come back: "echo", or the name of the error. */
  talk(name: string, bytes: number, seconds = 5): Promise<string> {
    return this.#ask(`talk ${name} ${bytes} ${seconds}`);
  }

  async #ask(line: string): Promise<string> {
    await this.#writer.write(new TextEncoder().encode(`${line}\n`));
    return await this.#line();
  }

  async #line(): Promise<string> {
    while (!this.#rest.includes("\n")) {
      const { value, done } = await this.#reader.read();
      if (done) throw new Error(`the process ended, having said ${this.#rest}`);
      this.#rest += value;
    }
    const end = this.#rest.indexOf("\n");
    const line = this.#rest.slice(0, end);
    this.#rest = this.#rest.slice(end + 1);
    return line;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#reader.cancel();
    await this.#writer.abort().catch(() => {});
    await this.#child.status;
  }
}
