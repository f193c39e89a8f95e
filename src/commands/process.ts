/** What the long-running commands have in common. */
import { configure, type LogLevel, type LogRecord } from "@logtape/logtape";
import { type Options, textOption } from "./command_line.ts";
import { neverWaitsForReaders } from "../native/non_blocking.ts";
import { jsonLines, textLines } from "./log_format.ts";
import { LogOutput } from "./log_output.ts";
import { ownerOf } from "./pod_lines.ts";

/** Resolves at the first of these signals. */
export function signalled(...signals: Deno.Signal[]): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of signals) Deno.addSignalListener(signal, () => resolve());
  });
}

/**
 * Logs to standard error as --log-level and --log-format say.
 *
 * @param thin leaves out lines: undefined for one of these.
 */
export async function configureLog(
  options: Options,
  thin: (record: LogRecord) => LogRecord | undefined = (record) => record,
): Promise<void> {
  const lines = textOption(options, "log-format") === "json" ? jsonLines() : textLines();
  neverWaitsForReaders(2);
  const output = new LogOutput(
    (bytes) => Deno.stderr.writeSync(bytes),
    (dropped) => lines(noticeOf(dropped)),
  );
  const write = (record: LogRecord) => {
    const said = thin(record);
    if (said !== undefined) output.write(lines(said), ownerOf(said));
  };
  // The command line has been checked: it is one of the names.
  const lowestLevel = textOption(options, "log-level") as LogLevel;
  await configure({
    sinks: { stderr: write },
    loggers: [
      { category: "kube-gateway", sinks: ["stderr"], lowestLevel },
      { category: ["logtape", "meta"], sinks: ["stderr"], lowestLevel: "error" },
    ],
  });
}

function noticeOf(dropped: ReadonlyMap<string, number>): LogRecord {
  const count = [...dropped.values()].reduce((sum, each) => sum + each, 0);
  const most = [...dropped].sort(([, a], [, b]) => b - a).slice(0, MOST_NAMED);
  const message = `${count} lines of log were dropped: nobody has read them in time`;
  return {
    category: ["kube-gateway", "log"],
    level: "warning",
    timestamp: Date.now(),
    message: [message],
    rawMessage: message,
    properties: {
      dropped: count,
      of: Object.fromEntries(most.map(([owner, each]) => [owner === "" ? "others" : owner, each])),
    },
  };
}

/** Those who have lost most. */
const MOST_NAMED = 20;
