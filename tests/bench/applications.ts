/** The applications in the pods: the same for all contenders, knowing nothing of any. */
import type { Place } from "../lab/place.ts";
import type { Pod } from "../lab/pod.ts";
import type { LabProcess } from "../lab/process.ts";
import { BULK_PORT, ECHO_PORT, HTTP_PORT, type Way } from "./contenders/contender.ts";
import { parseIperf, parseReport, parseWrk } from "./parse.ts";

/** iperf3, an HTTP server and an echo server. */
export async function startServers(pod: Pod, directory: string): Promise<void> {
  const file = `${directory}/${pod.name}-http.conf`;
  await Deno.writeTextFile(file, httpServer(`${directory}/${pod.name}-http.pid`));
  pod.spawn(["iperf3", "-s", "-p", String(BULK_PORT)]);
  pod.spawn(["nginx", "-e", "/dev/null", "-c", file]);
  const echo = pod.spawn([...APPS, "echo", "--port", String(ECHO_PORT)]);
  await echo.waitForEvent(({ event }) => event === "listening");
}

export async function iperf(
  { client, address }: Way,
  seconds: number,
  ...more: string[]
): Promise<ReturnType<typeof parseIperf>> {
  const { host, port } = address(BULK_PORT);
  const command = ["iperf3", "-J", "-c", host, "-p", `${port}`, "-t", `${seconds}`, ...more];
  const { stdout } = await client.run(command, { timeoutMs: allowed(seconds) });
  return parseIperf(stdout);
}

/** HTTP requests per second. */
export async function wrk(
  { client, address }: Way,
  seconds: number,
  connections: number,
  ...headers: string[]
): Promise<number> {
  const { host, port } = address(HTTP_PORT);
  const { stdout, stderr } = await client.run([
    ...["wrk", "-t", "1", "-c", `${connections}`, "-d", `${seconds}s`],
    ...headers.flatMap((header) => ["-H", header]),
    `http://${host}:${port}/`,
  ], { timeoutMs: allowed(seconds) });
  return parseWrk(`${stdout}\n${stderr}`);
}

/** Runs a client of apps/ against the echo server, and returns what it reports. */
export async function echoClient(
  way: Way,
  mode: "pingpong" | "connects",
  seconds: number,
  ...more: string[]
): Promise<Record<string, number>> {
  const command = echoCommand(way, mode, more);
  return await reported(way.client, command, allowed(seconds));
}

/** Starts a client of apps/ that holds connections to the echo server until its input ends. */
export function holdConnections(way: Way, steps: readonly number[]): LabProcess {
  return way.client.spawn(echoCommand(way, "hold", ["--steps", ...steps.map(String)]), {
    stdin: true,
  });
}

/** Connects and closes in a loop, to a listener in the same place. */
export async function dialLocally(place: Place, count: number): Promise<Record<string, number>> {
  return await reported(place, [...APPS, "dial", "--count", `${count}`], 60_000);
}

function echoCommand({ address }: Way, mode: string, more: readonly string[]): string[] {
  const { host, port } = address(ECHO_PORT);
  return [...APPS, mode, "--host", host, "--port", `${port}`, ...more];
}

async function reported(place: Place, command: string[], timeoutMs: number) {
  const { code, stdout, stderr } = await place.run(command, { timeoutMs });
  if (code !== 0) throw new Error(stderr.trim().split("\n").at(-1) ?? `ended with ${code}`);
  return parseReport(stdout);
}

/** A run's milliseconds; one that hangs is given up. */
const allowed = (seconds: number) => seconds * 1000 + 20_000;

const APPS = ["python3", "-B", "-S", `${import.meta.dirname}/apps`];

function httpServer(pidFile: string): string {
  return `
daemon off;
pid ${pidFile};
worker_processes 1;
error_log stderr emerg;
events { worker_connections 20000; }
http {
  access_log off;
  keepalive_requests 100000000;
  server {
    listen ${HTTP_PORT} backlog=4096 reuseport;
    location / { return 200 "${"x".repeat(64)}"; }
  }
}
`;
}
