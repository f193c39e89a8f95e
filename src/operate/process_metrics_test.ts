import { ok, strictEqual } from "node:assert/strict";
import { Registry } from "prom-client";
import { collectProcessMetrics } from "./process_metrics.ts";

Deno.test("a process's metrics are of the moment they are asked for", async () => {
  const registry = new Registry();
  collectProcessMetrics(registry);
  const read = async (name: string) => {
    const line = (await registry.metrics()).split("\n").find((line) => line.startsWith(`${name} `));
    return Number(line?.split(" ")[1]);
  };
  const [open, cpu] = [await read("process_open_fds"), await read("process_cpu_seconds_total")];
  const files = Array.from({ length: 20 }, () => Deno.openSync("/dev/null"));
  strictEqual(await read("process_open_fds") - open, 20);
  for (const file of files) file.close();
  const until = performance.now() + 50;
  while (performance.now() < until) { /* uses the processor */ }
  ok(await read("process_cpu_seconds_total") > cpu);
  ok(await read("process_cpu_seconds_total") < 3_600, "seconds, and not added up");
  ok(await read("process_max_fds") >= open);
  const started = await read("process_start_time_seconds");
  ok(Math.abs(started - Date.now() / 1000) < 600, `${started}`);
});
