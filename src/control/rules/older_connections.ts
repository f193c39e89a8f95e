import { allowingRule } from "../../policy.ts";
import type { PodSettings } from "./settings.ts";

/**
 * A connection between an enrolled pod and a peer that is not through the tunnel: it was there
 * before.
 */
export interface OlderConnection {
  /** The pod is the side that listens. */
  readonly isInbound: boolean;
  /** The pod's own port; where `isInbound` the application's. */
  readonly port: number;
  /** SPIFFE ID that the registry names for the other end; undefined when it names none. */
  readonly peerIdentity: string | undefined;
}

/**
 * Whether a connection that is older than the pod's enrolment is to be ended now: what the pod's
 * annotations forbid at once, everything else when the time that `kube-gateway.io/grace` gives is
 * over.
 *
 * @param seconds since the pod was enrolled.
 */
export function mustEnd(
  connection: OlderConnection,
  settings: Pick<
    PodSettings,
    "inbound" | "isInboundImplied" | "egress" | "policy" | "graceSeconds"
  >,
  seconds: number,
): boolean {
  const { inbound, isInboundImplied, egress, graceSeconds } = settings;
  // Whom a policy allows it would let in again at once, encrypted.
  const isClosed = inbound === "strict" && !isInboundImplied;
  if (connection.isInbound ? isClosed : egress === "strict") return true;
  if (connection.isInbound && !isAllowed(connection, settings)) return true;
  return graceSeconds !== undefined && seconds >= graceSeconds;
}

function isAllowed(
  { port, peerIdentity }: OlderConnection,
  { policy }: Pick<PodSettings, "policy">,
): boolean {
  if (policy === undefined || policy.dryRun) return true;
  const [, namespace, serviceAccount] =
    /^spiffe:\/\/[^/]+\/ns\/([^/]+)\/sa\/([^/]+)$/.exec(peerIdentity ?? "") ?? [];
  return namespace !== undefined && serviceAccount !== undefined &&
    allowingRule(policy, { namespace, serviceAccount }, port) !== undefined;
}
