/**
 * What an enrolment asks of the kernel and of the relay workers; `open_pod_kernel.ts` is the real
 * one.
 */
import type { Fault } from "../../kernel/fault.ts";
import type { Strictness } from "../../kernel/maps.ts";
import type { ProofResult, RelaySettings } from "../../relay/messages.ts";
import type { OlderConnection } from "../rules/older_connections.ts";
import type { WantedEnrolment } from "../rules/desired.ts";
import type { PodNamespace } from "./namespace.ts";
import type { PodCertificate, PodCredentials } from "./pod_certificate.ts";

/** What is to be refused or looked at in a pod's namespace, beyond what its programs do. */
export interface Restrictions {
  readonly inbound: Strictness;
  readonly egress: Strictness;
  /** Its devices are looked at in any case. */
  readonly isGuarded: boolean;
}

/** What is open for a pod in one of its network namespaces, see `serving.ts`. */
export interface PodServing {
  readonly wanted: WantedEnrolment;
  readonly found: Pick<PodNamespace, "addresses" | "held">;
  letThrough(): void;
  isLetThrough(): boolean;
  serve(credentials: PodCredentials, settings: RelaySettings): Promise<void>;
  follow(certificate: PodCertificate): void;
  adjust(settings: RelaySettings): void;
  /**
   * Refuses plain connections to the pod, and guards its devices, as it says. Throws a SystemError.
   */
  restrict(restrictions: Restrictions): void;
  /** Whether processes of the pod still stand in its namespace. Throws when that cannot be told. */
  isInUse(): boolean;
  /**
   * The addresses at which others may reach the namespace now, canonical text. Throws a
   * SystemError.
   */
  reachableAt(): readonly string[];
  /** What of the two is not so, as the kernel says now. */
  inspectRestrictions(restrictions: Restrictions): Fault[];
  /**
   * What is wrong with the sockets that listen for the pod. `thorough`, which costs the kernel a
   * walk through the node's sockets: also whose others listen beside them, and whether the pod
   * holds addresses where none listens.
   */
  inspectListeners(thorough: boolean): string[];
  /**
   * Makes a mutual TLS handshake with the pod's own port, as a peer would; at another of its
   * addresses each time.
   */
  prove(): Promise<ProofResult>;
  /** Counts what the pod sends to peers outside the tunnel. Throws a SystemError. */
  count(): void;
  /** The same, and what was counted before is forgotten. */
  countAnew(): void;
  /** Whether it is counted. */
  isCounted(): boolean;
  /** Connections with peers outside the tunnel that are open now. Throws a SystemError. */
  olderConnections(): OpenConnections;
  close(drainMilliseconds: number): Promise<void>;
}

/** Connections with peers outside the tunnel. */
export interface OpenConnections {
  readonly list: readonly (OlderConnection & { readonly name: string })[];
  /** False: there were more than could be listed. */
  readonly isComplete: boolean;
  /** Ends those of these numbers; false when this kernel cannot. Throws a SystemError. */
  end(indexes: readonly number[]): boolean;
}

/** Where a pod is on this node: its cgroup, its namespace, its programs. */
export interface PodKernel {
  /**
   * The kernel's name of a cgroup: one that was made anew has the path of the old one. Throws when
   * it is gone.
   */
  cgroupId(cgroup: string): bigint;
  /** Attaches the pod's programs, or replaces them. Throws a SystemError. */
  attach(uid: string, cgroup: string, strictEgress: boolean): void;
  /**
   * The pod's connections are plain from now on; what goes through the relay is shown as before.
   */
  release(uid: string): void;
  detach(uid: string): void;
  /** What of that is not so, as the kernel says now. Throws when the cgroup is gone. */
  inspect(uid: string, cgroup: string, strictEgress: boolean, isThorough: boolean): Fault[];
  /**
   * Finds the pod's namespace, and opens its listeners there.
   *
   * @throws {NotThereYet} while kubelet and the runtime have not made it, or another Error.
   */
  open(wanted: WantedEnrolment, cgroup: string): PodServing;
}

/** What others than the agent have to bring: a process of the pod, its namespace, its address. */
export class NotThereYet extends Error {
  override readonly name = "NotThereYet";
}
