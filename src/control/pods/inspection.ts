import { errorText } from "../../error_text.ts";
import type { GuardCount } from "../../kernel/guard_counts.ts";
import { shortage } from "../../native/errno.ts";
import type { PodKernel, PodServing, Restrictions } from "./pod_kernel.ts";

/** Something that was not as it should be, as it was seen just now. */
export interface Finding {
  /** Counted by this: a word of a closed list. */
  readonly kind: string;
  /** On what, and what was wrong with it. */
  readonly what: string;
  /** How many of them; absent: one. */
  readonly count?: number;
}

/** That something could not be looked at: then nobody knows whether it is as it should be. */
export function unseen(error: unknown): Finding {
  const why = shortage(error) ?? errorText(error);
  return { kind: UNSEEN, what: `it cannot be looked at: ${why}` };
}

/** The kind of what could not be looked at. */
export const UNSEEN = "unknown";

/** An enrolled pod as it should be, where to look whether it is, and how to mend it. */
export interface Inspected {
  readonly uid: string;
  /** Undefined while none has its programs. */
  readonly cgroup: string | undefined;
  readonly strictEgress: boolean;
  readonly restrictions: Restrictions;
  /** How long it has been served as it is now. */
  readonly servedMilliseconds: number;
  readonly kernel: Pick<PodKernel, "inspect">;
  readonly serving: PodServing;
  /** Attaches all its programs anew. Throws what keeps them from being attached. */
  readonly attach: (cgroup: string) => void;
  /** Serves it anew. */
  readonly giveUp: (reason: string) => void;
}

/**
 * Compares what the kernel has for a pod with what should be there: adds to `findings` what is
 * wrong, and yields how to mend it.
 *
 * @param isThorough whether also what costs more is looked at.
 */
export function* inspections(
  pod: Inspected,
  findings: Finding[],
  isThorough: boolean,
): Generator<() => void> {
  const { uid, cgroup, strictEgress, restrictions, kernel, serving } = pod;
  if (cgroup !== undefined) {
    const faults = kernel.inspect(uid, cgroup, strictEgress, isThorough);
    findings.push(...faults);
    if (faults.length > 0) yield () => pod.attach(cgroup);
  }
  const open = serving.inspectRestrictions(restrictions);
  findings.push(...open);
  if (open.length > 0) yield () => serving.restrict(restrictions);
  if (!serving.isLetThrough()) {
    findings.push({ kind: "pods_entry", what: "its entry in the map of pods was wrong" });
    yield () => serving.letThrough();
  }
  if (!serving.isCounted()) {
    const what = "what it sent to peers outside the tunnel was not counted: its entry was missing";
    findings.push({ kind: "guard_entry", what });
    yield () => serving.count();
  }
  // The listeners of an enrolment that was given up a moment ago may still be there.
  if (pod.servedMilliseconds < SETTLING_MILLISECONDS) return;
  const wrong = serving.inspectListeners(isThorough);
  findings.push(...wrong.map((what) => ({ kind: "listener", what })));
  if (wrong.length > 0) yield () => pod.giveUp(wrong.join("; "));
}

/** Listeners that were given up are closed by then. */
const SETTLING_MILLISECONDS = 2_000;

/**
 * What the counts say of a pod whose kernel nobody knows: bytes that went past its programs show
 * that it has one of its own, and cannot be encrypted.
 */
export function escaped(plaintext: readonly GuardCount[]): Finding[] {
  const bytes = plaintext
    .filter(({ seen, protocol }) => seen === "device" && protocol === "tcp")
    .reduce((sum, { payloadBytes }) => sum + payloadBytes, 0);
  if (bytes === 0) return [];
  const what =
    `${bytes} bytes went to peers past its programs: it has a kernel of its own, which ` +
    "--guest-runtimes should name";
  return [{ kind: "escaped", what }];
}
