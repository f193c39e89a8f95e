import { getLogger, type Logger } from "@logtape/logtape";

/** The logger of one part of the agent; `part` is the folder's or the idea's name. */
export function logger(part: string): Logger {
  return getLogger(["kube-gateway", part]);
}

/** Logs a sentence that was made elsewhere, and is no template: braces in it are braces. */
export function logSentence(
  log: Logger,
  level: "info" | "warning" | "error",
  sentence: string,
  fields: Record<string, unknown>,
): void {
  // A tagged template without placeholders: LogTape takes its one part as it is.
  log.with(fields)[level](Object.assign([sentence], { raw: [sentence] }));
}
