import { BULK_PORT, type Contender, HTTP_PORT } from "./contenders.ts";

/** One thing that is measured. `better` says which way. */
export interface Measure {
  readonly name: string;
  readonly unit: string;
  readonly better: "more" | "less";
  run(contender: Contender, seconds: number): Promise<number>;
}

export const MEASURES: readonly Measure[] = [
  bulk("bulk, one stream, to the server", 1, false),
  bulk("bulk, one stream, to the client", 1, true),
  bulk("bulk, eight streams", 8, false),
  http("request/response, one connection, p50", "µs", "less", 1, (text) => latency(text, "50%")),
  http("request/response, one connection, p99", "µs", "less", 1, (text) => latency(text, "99%")),
  http("requests/s, 64 keep-alive connections", "/s", "more", 64, rate),
  http("new connections/s", "/s", "more", 16, rate, "Connection: close"),
  {
    name: "CPU of the whole machine per GB",
    unit: "s",
    better: "less",
    async run(contender, seconds) {
      const before = busySeconds();
      const gigabits = await iperf(contender, seconds, 1, false);
      return (busySeconds() - before) / (gigabits * seconds / 8);
    },
  },
];

function bulk(name: string, streams: number, reverse: boolean): Measure {
  return {
    name,
    unit: "Gbit/s",
    better: "more",
    run: (contender, seconds) => iperf(contender, seconds, streams, reverse),
  };
}

async function iperf(
  { client, address }: Contender,
  seconds: number,
  streams: number,
  reverse: boolean,
): Promise<number> {
  const { host, port } = address(BULK_PORT);
  const { stdout } = await client.run([
    ...[
      "iperf3",
      "-J",
      "-c",
      host,
      "-p",
      String(port),
      "-t",
      String(seconds),
      "-P",
      String(streams),
    ],
    ...(reverse ? ["-R"] : []),
  ], { timeoutMs: seconds * 1000 + 30_000 });
  const result = JSON.parse(stdout);
  if (result.error !== undefined) throw new Error(`iperf3: ${result.error}`);
  return result.end.sum_received.bits_per_second / 1e9;
}

function http(
  name: string,
  unit: string,
  better: "more" | "less",
  connections: number,
  read: (output: string) => number,
  header = "Connection: keep-alive",
): Measure {
  return {
    name,
    unit,
    better,
    async run({ client, address }, seconds) {
      const { host, port } = address(HTTP_PORT);
      const { stdout, stderr } = await client.run([
        ...["wrk", "--latency", "-t", "1", "-c", String(connections), "-d", `${seconds}s`],
        ...["-H", header, `http://${host}:${port}/`],
      ], { timeoutMs: seconds * 1000 + 30_000 });
      const value = read(stdout);
      if (Number.isNaN(value)) throw new Error(`wrk: ${stdout}${stderr}`);
      return value;
    },
  };
}

function rate(output: string): number {
  return Number(/Requests\/sec:\s+([\d.]+)/.exec(output)?.[1] ?? NaN);
}

/** A percentile of wrk's, in microseconds. */
function latency(output: string, percentile: string): number {
  const found = new RegExp(`${percentile}\\s+([\\d.]+)(us|ms|s)`).exec(output);
  const scale: Record<string, number> = { us: 1, ms: 1000, s: 1_000_000 };
  return Number(found?.[1] ?? NaN) * (scale[found?.[2] ?? ""] ?? NaN);
}

/** All that is not idle of all processors since boot: proc(5), /proc/stat, in hundredths of a second. */
function busySeconds(): number {
  const [line = ""] = Deno.readTextFileSync("/proc/stat").split("\n");
  const [user, nice, system, , , irq, softirq, steal] = line.split(/\s+/).slice(1).map(Number);
  return [user, nice, system, irq, softirq, steal].reduce<number>((sum, n) => sum + (n ?? 0), 0) /
    100;
}
