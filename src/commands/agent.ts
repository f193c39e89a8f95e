import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  configure,
  getJsonLinesFormatter,
  getTextFormatter,
  type LogLevel,
} from "@logtape/logtape";
import { runAgent } from "../agent.ts";
import { cgroup2Mount } from "../control/cgroup.ts";
import { type Options, textOption } from "./command_line.ts";

/** `kube-gateway agent`. Resolves after SIGTERM or SIGINT. */
export async function agentCommand(options: Options): Promise<void> {
  await configureLog(textOption(options, "log-level"), textOption(options, "log-format"));
  const objectFile = fileURLToPath(new URL("../../build/redirect.bpf.o", import.meta.url));
  if (!existsSync(objectFile)) {
    throw new Error(`${objectFile} is missing: compile the eBPF programs with deno task build:bpf`);
  }
  const cgroupRoot = options["cgroup-root"];
  await runAgent({
    nodeName: textOption(options, "node-name"),
    source: { directory: textOption(options, "cluster") },
    trustDomain: textOption(options, "trust-domain"),
    certificateSeconds: Number(textOption(options, "cert-ttl")),
    stateDirectory: textOption(options, "state-dir"),
    cgroupRoot: typeof cgroupRoot === "string"
      ? cgroupRoot
      : cgroup2Mount(readFileSync("/proc/self/mountinfo", "utf8")),
    procRoot: textOption(options, "proc-root"),
    workers: Number(textOption(options, "workers")),
    adminSocket: textOption(options, "admin-socket"),
    objectFile,
  }, signalled("SIGTERM", "SIGINT"));
}

function signalled(...signals: Deno.Signal[]): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of signals) Deno.addSignalListener(signal, () => resolve());
  });
}

async function configureLog(level: string, format: string): Promise<void> {
  const lines = format === "json"
    ? getJsonLinesFormatter({ message: "rendered", properties: "flatten", categorySeparator: "." })
    : getTextFormatter({ timestamp: "rfc3339" });
  const encoder = new TextEncoder();
  const lowestLevel = level as LogLevel; // command_line.ts allows LogTape's names only
  await configure({
    sinks: { stderr: (record) => void Deno.stderr.writeSync(encoder.encode(lines(record))) },
    loggers: [
      { category: "kube-gateway", sinks: ["stderr"], lowestLevel },
      { category: ["logtape", "meta"], sinks: ["stderr"], lowestLevel: "error" },
    ],
  });
}
