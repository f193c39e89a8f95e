import { getLogger, type Logger } from "@logtape/logtape";

/** The logger of one part of the agent; `part` is the folder's or the idea's name. */
export function logger(part: string): Logger {
  return getLogger(["kube-gateway", part]);
}
