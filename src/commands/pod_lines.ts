import type { LogRecord } from "@logtape/logtape";
import { LogShares, MOST_NAMESPACES, NAMESPACE_LINES, Suppressed } from "../log_budget.ts";
import { namespaceOf } from "../names.ts";

/**
 * Thins out what an agent logs about the pods of one namespace, whichever part and worker it comes
 * from. The access log, which the operator has asked for, is bounded where it is made.
 */
export class PodLines {
  readonly #shares = new LogShares(NAMESPACE_LINES);
  /** Of the namespaces that have something to say of it. */
  readonly #suppressed = new Map<string, Suppressed>();

  /**
   * The line as it is to be written at `now`, in milliseconds that only grow; undefined when it is
   * left out.
   */
  take(record: LogRecord, now: number): LogRecord | undefined {
    const namespace = namespaceIn(record);
    if (namespace === "" || record.category[1] === "access") return record;
    const suppressed = this.#suppressed.get(namespace) ?? new Suppressed();
    const isTaken = this.#shares.take(namespace, now);
    const properties = suppressed.say(isTaken, record.properties);
    if (properties !== undefined) {
      this.#suppressed.delete(namespace);
      return { ...record, properties };
    }
    this.#suppressed.set(namespace, suppressed);
    const [oldest] = this.#suppressed.keys();
    if (this.#suppressed.size > MOST_NAMESPACES) this.#suppressed.delete(oldest ?? "");
    return undefined;
  }
}

/**
 * Whose flood a line may be: a namespace, or the node that has asked the signer for something.
 * Empty for what the process says of itself.
 */
export function ownerOf(record: LogRecord): string {
  const { node } = record.properties;
  const namespace = namespaceIn(record);
  return namespace !== "" || typeof node !== "string" ? namespace : `node ${node}`;
}

/** The namespace of the pod or Service that a line is about. */
function namespaceIn({ properties: { pod, where } }: LogRecord): string {
  const name = pod ?? where;
  return typeof name === "string" ? namespaceOf(name) : "";
}
