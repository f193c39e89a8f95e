import type { Pod } from "../../cluster/objects.ts";
import type { Desired } from "./desired.ts";
import type { Enrolment } from "../pods/enrolment.ts";
import type { Verdict } from "../../cluster/verdict.ts";

/**
 * What is to be said of this node's pods, where it is not what their status says already. Nothing
 * about pods that have never been annotated, nor about a pod that has only just begun to enrol: it
 * would be over before it is read. A pod is not secured before all nodes' agents can know it:
 * others would connect to it in clear, which a readiness gate on the condition prevents.
 *
 * @param whyUnknown why other nodes' pods may connect to it in clear; undefined when none can.
 * @param notes what is to be said of every pod that is secured, since it may not last.
 */
export function verdictsOf(
  pods: readonly Pod[],
  desired: Desired,
  enrolments: readonly Pick<Enrolment, Told>[],
  whyUnknown: (uid: string) => string | undefined,
  notes: readonly string[] = [],
): Verdict[] {
  const enrolmentByUid = new Map(enrolments.map((each) => [each.wanted.uid, each]));
  const refusalByUid = new Map(desired.refused.map(({ uid, reason }) => [uid, reason]));
  return pods.flatMap((pod): Verdict[] => {
    const enrolment = enrolmentByUid.get(pod.uid);
    const refusal = refusalByUid.get(pod.uid);
    const verdict = refusal !== undefined
      ? verdictOf(pod, "False", "Refused", refusal)
      : enrolment !== undefined
      ? ofEnrolment(pod, enrolment, whyUnknown(pod.uid), notes)
      : desired.enrolments.has(pod.uid) || pod.secured === undefined
      ? undefined
      : notEnrolled(pod, isOver(pod) ? OVER : NOT_ANNOTATED);
    return verdict === undefined || isSaid(verdict) ? [] : [verdict];
  });
}

type Told =
  | "wanted"
  | "isWanted"
  | "state"
  | "reason"
  | "flaws"
  | "renewalProblem"
  | "proved"
  | "isNew"
  | "addresses"
  | "settings";

/** For a pod that goes back to plain connections. */
export function notEnrolled(pod: Pod, why: string): Verdict {
  return verdictOf(pod, "False", "NotEnrolled", `its connections are not encrypted: ${why}`);
}

function ofEnrolment(
  pod: Pod,
  enrolment: Pick<Enrolment, Told>,
  whyUnknown: string | undefined,
  notes: readonly string[],
): Verdict | undefined {
  const { wanted, isWanted, state, reason, flaws, renewalProblem, proved, isNew } = enrolment;
  const { addresses, settings } = enrolment;
  if (!isWanted) {
    if (pod.secured === undefined) return undefined;
    return notEnrolled(pod, isOver(pod) ? OVER : NOT_ANNOTATED);
  }
  if (flaws.length > 0) return verdictOf(pod, "False", "Repairing", flaws.join("; "));
  if (renewalProblem !== undefined) {
    return verdictOf(pod, "False", "Repairing", renewalProblem);
  }
  const isProved = proved !== undefined;
  if (state === "active" && isProved && whyUnknown === undefined) {
    const message = `${wanted.identity} at ${addresses.join(", ")}: ` +
      "TCP connections with other enrolled pods are mutual TLS 1.3";
    return verdictOf(pod, "True", "Enrolled", [message, ...settings.problems, ...notes].join("; "));
  }
  // One that was secured is not while it waits, however short that is: the next look will tell.
  if (isNew && pod.secured?.status !== "True") return undefined;
  const message = state === "active" && !isProved
    ? "no handshake with its own port has succeeded yet"
    : state === "active"
    ? `${whyUnknown}, so other pods may connect to it in clear`
    : `connections to peers are refused: ${reason ?? "enrolling"}`;
  return verdictOf(pod, "False", "Waiting", message);
}

function verdictOf(
  pod: Pod,
  status: Verdict["status"],
  reason: Verdict["reason"],
  message: string,
): Verdict {
  return { pod, status, reason, message };
}

function isSaid({ pod: { secured }, status, reason, message }: Verdict): boolean {
  return secured?.status === status && secured.reason === reason && secured.message === message;
}

function isOver({ phase }: Pod): boolean {
  return phase === "Succeeded" || phase === "Failed";
}

const OVER = "its status says that it has ended";
const NOT_ANNOTATED = 'the annotation kube-gateway.io is not "true"';
