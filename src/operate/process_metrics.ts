import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { Counter, Gauge, type Registry } from "prom-client";

/**
 * The process's own metrics, under the names that all of Prometheus' client libraries use, so that
 * dashboards know them; each is read when it is asked for. prom-client's default metrics would be
 * these and eighty more of Node's, and wake an idle process a hundred times a second.
 */
export function collectProcessMetrics(register: Registry): void {
  const registers = [register];
  new Counter({
    name: "process_cpu_seconds_total",
    help: "Total user and system CPU time spent in seconds.",
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  new Gauge({
    name: "process_start_time_seconds",
    help: "Start time of the process since unix epoch in seconds.",
    registers,
    collect() {
      this.set(performance.timeOrigin / 1000);
    },
  });
  new Gauge({
    name: "process_open_fds",
    help: "Number of open file descriptors.",
    registers,
    collect() {
      this.set(readdirSync("/proc/self/fd").length);
    },
  });
  new Gauge({
    name: "process_max_fds",
    help: "Maximum number of open file descriptors.",
    registers,
    collect() {
      const limits = readFileSync("/proc/self/limits", "utf8");
      const [, most] = /^Max open files\s+(\d+)/m.exec(limits) ?? [];
      if (most === undefined) this.remove(); // it is unlimited
      else this.set(Number(most));
    },
  });
}
