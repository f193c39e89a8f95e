import { sameMembers } from "../../same.ts";
import type { PodServing } from "./pod_kernel.ts";

/**
 * The addresses at which others may reach a pod and which its object does not name: it has lost
 * them, or somebody has given the pod a second one. Nobody has a certificate for them, so that
 * peers, unless they are refused, send there in clear.
 */
export class UnnamedAddresses {
  #list: readonly string[] = [];

  /** As last looked at, the first ones of many. Canonical text. */
  get list(): readonly string[] {
    return this.#list;
  }

  /**
   * Looks again; true when they have changed.
   *
   * @param named by the pod's object; none while it has not been told yet.
   * @param registered what the registry names for the pod: that may be one while it cannot be told
   * what the pod has.
   * @param serving undefined: none goes but what is named again.
   */
  look(
    named: readonly string[],
    registered: readonly string[],
    serving: PodServing | undefined,
  ): boolean {
    const candidates = serving === undefined
      ? this.#list
      : reachableAt(serving) ?? [...this.#list, ...registered];
    const unnamed = named.length === 0
      ? []
      : [...new Set(candidates)].filter((address) => !named.includes(address)).slice(0, MOST);
    if (sameMembers(unnamed, this.#list)) return false;
    this.#list = unnamed;
    return true;
  }
}

/** Undefined while that cannot be told. */
function reachableAt(serving: PodServing): readonly string[] | undefined {
  try {
    return serving.isInUse() ? serving.reachableAt() : [];
  } catch {
    return undefined; // a node that is out of descriptors
  }
}

const MOST = 16;
