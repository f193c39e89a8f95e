import { parseAddress, specialAddress } from "../../addresses.ts";
import { ANNOTATION } from "../../constants.ts";
import { spiffeId } from "../../identity/spiffe.ts";
import { quoted } from "../../names.ts";
import type { ClusterObjects } from "../../cluster/cluster.ts";
import type { Pod } from "../../cluster/objects.ts";
import { kernelOf } from "./runtime_class.ts";
import { type Annotations, type PodSettings, settingsOf } from "./settings.ts";

/** A local pod that is to be enrolled. */
export interface WantedEnrolment {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount: string;
  /** SPIFFE ID. */
  readonly identity: string;
  /** Canonical text; empty until the pod has one, and the enrolment waits so long. */
  readonly addresses: readonly string[];
  readonly settings: PodSettings;
  /**
   * Its packets are looked at on its device: it may have a kernel of its own, whose connect()
   * nobody sees.
   */
  readonly isGuarded: boolean;
}

/** An annotated local pod that cannot be enrolled. */
export interface RefusedPod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly reason: string;
  /**
   * It must be encrypted all the same, so that peers refuse to connect to it instead of sending in
   * clear: its SPIFFE ID and its addresses. Undefined for what was never a request: another value,
   * a pod without a network of its own.
   */
  readonly registered?: { readonly identity: string; readonly addresses: readonly string[] };
}

/** What the agent works towards. */
export interface Desired {
  /** By pod UID. */
  readonly enrolments: Map<string, WantedEnrolment>;
  readonly refused: RefusedPod[];
}

/**
 * Which local pods should be enrolled, given everything that is known. Computed from the whole
 * state and never from a change, so no order of events, and no late or repeated one, can leave a
 * trace in it.
 */
export function desiredState(
  objects: ClusterObjects,
  nodeName: string,
  trustDomain: string,
  guestRuntimes: readonly string[] = [],
  defaults: Annotations = {},
): Desired {
  const enrolments = new Map<string, WantedEnrolment>();
  const refused: RefusedPod[] = [];
  for (const pod of objects.pods) {
    if (pod.nodeName !== nodeName || hasEnded(pod)) continue;
    // A pod's own word wins over its namespace's.
    const own = pod.annotations[ANNOTATION];
    const inherited = objects.namespaces.get(pod.namespace)?.annotations ?? {};
    const wish = own ?? inherited[ANNOTATION];
    if (wish === undefined || wish === "false") continue;
    const { uid, namespace, name, serviceAccount, addresses } = pod;
    const reason = refusal(pod, wish, own === undefined);
    if (reason !== undefined) {
      refused.push({ uid, namespace, name, reason });
      continue;
    }
    const kernel = kernelOf(pod.runtimeClass, objects.runtimeHandlers, guestRuntimes);
    const identity = spiffeId(trustDomain, namespace, serviceAccount || "default");
    if (serviceAccount === "") {
      const reason = "a static pod has no service account, so nobody can say who it is: " +
        "run it as a DaemonSet or a Deployment";
      refused.push({ uid, namespace, name, reason, registered: { identity, addresses } });
      continue;
    }
    if (kernel === "guest") {
      const reason =
        `runtime class ${pod.runtimeClass}: the pod has a kernel of its own, whose connections ` +
        "cannot be redirected";
      refused.push({ uid, namespace, name, reason, registered: { identity, addresses } });
      continue;
    }
    enrolments.set(uid, {
      uid,
      namespace,
      name,
      serviceAccount,
      identity,
      addresses,
      settings: settingsOf(pod.annotations, inherited, defaults),
      isGuarded: kernel === "unknown",
    });
  }
  return { enrolments, refused };
}

/** A pod whose containers will not run again; its address may be another's by now. */
export function hasEnded(pod: Pod): boolean {
  return pod.phase === "Succeeded" || pod.phase === "Failed";
}

function refusal(pod: Pod, wish: string, isNamespaces: boolean): string | undefined {
  if (wish !== "true") {
    const whose = isNamespaces ? `namespace ${pod.namespace}'s annotation` : "annotation";
    return `${whose} ${ANNOTATION} must be "true" or "false", not ${quoted(wish, 40)}`;
  }
  if (pod.hostNetwork) return "hostNetwork: the pod has no network of its own";
  for (const address of pod.addresses) {
    const special = specialAddress(parseAddress(address));
    if (special !== undefined) return `its address ${address} is ${special}`;
  }
  return undefined;
}
