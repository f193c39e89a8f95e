import { sameMembers } from "../../same.ts";
import type { PodServing } from "./pod_kernel.ts";

/**
 * The addresses that the registry names for a pod and its object names no more, as long as the pod's namespace holds them.
 * Nobody has a certificate for them, so peers are to be refused there: were they withdrawn, peers would send in clear.
 */
export class UnnamedAddresses {
  #list: readonly string[] = [];

  /** As last looked at. Canonical text. */
  get list(): readonly string[] {
    return this.#list;
  }

  /**
   * Looks again; true when they have changed.
   *
   * @param named by the pod's object.
   * @param serving undefined: what the namespace holds is not known, so none goes but what is named again.
   */
  look(
    named: readonly string[],
    registered: readonly string[],
    serving: PodServing | undefined,
  ): boolean {
    const candidates = serving === undefined ? this.#list : registered;
    const unnamed = candidates.filter((address) => !named.includes(address));
    const held = unnamed.length === 0 ? unnamed : heldOf(unnamed, serving);
    if (sameMembers(held, this.#list)) return false;
    this.#list = held;
    return true;
  }
}

/** Those of `addresses` that the pod has; all of them while that cannot be told. */
function heldOf(addresses: readonly string[], serving: PodServing | undefined): readonly string[] {
  if (serving === undefined) return addresses;
  try {
    return serving.isInUse() ? serving.holds(addresses) : [];
  } catch {
    return addresses; // a node that is out of descriptors
  }
}
