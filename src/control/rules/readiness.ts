import type { Enrolment } from "../pods/enrolment.ts";

/** How far an agent has come with its node. */
export interface Progress {
  /** Some of the cluster's objects have been read. */
  readonly hasObjects: boolean;
  /** It has charge of its node. */
  readonly hasBegun: boolean;
  /** Everything has been read, and every pod been tried once. */
  readonly isSettled: boolean;
  readonly enrolments: readonly Pick<Enrolment, "state" | "isPresent" | "flaws">[];
  /** How many there are of the node itself. */
  readonly problems: number;
}

/** Why a pod may still be without what its annotation asks for; undefined when none is. */
export function whyNotReady(
  { hasObjects, hasBegun, isSettled, enrolments, problems }: Progress,
): string | undefined {
  if (!hasObjects) return "the cluster's objects have not been read yet";
  if (!hasBegun) return undefined; // ready to follow the agent that is still here
  if (!isSettled) return "the pods of this node have not all been tried yet";
  const late = enrolments.filter(({ state, isPresent, flaws }) =>
    ((state === "waiting" || state === "enrolling") && isPresent) ||
    (state === "active" && flaws.length > 0)
  );
  if (late.length + problems === 0) return undefined;
  // Whoever reaches the port may ask: no names.
  return `${late.length} pods are not as they should be, ${problems} problems of the node: ` +
    "kube-gateway status names them";
}
