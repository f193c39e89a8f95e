/** What the long-running commands have in common. */
import { configure, type LogLevel } from "@logtape/logtape";
import { type Options, textOption } from "./command_line.ts";
import { jsonLines, textLines } from "./log_format.ts";

/** Resolves at the first of these signals. */
export function signalled(...signals: Deno.Signal[]): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of signals) Deno.addSignalListener(signal, () => resolve());
  });
}

/** Logs to standard error as --log-level and --log-format say. */
export async function configureLog(options: Options): Promise<void> {
  const lines = textOption(options, "log-format") === "json" ? jsonLines() : textLines();
  const encoder = new TextEncoder();
  // The command line has been checked: it is one of the names.
  const lowestLevel = textOption(options, "log-level") as LogLevel;
  await configure({
    sinks: { stderr: (record) => void Deno.stderr.writeSync(encoder.encode(lines(record))) },
    loggers: [
      { category: "kube-gateway", sinks: ["stderr"], lowestLevel },
      { category: ["logtape", "meta"], sinks: ["stderr"], lowestLevel: "error" },
    ],
  });
}
