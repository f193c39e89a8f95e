import type { RegistryEntry } from "../../cluster/registry.ts";
import type { Enrolment } from "../pods/enrolment.ts";
import type { Desired } from "./desired.ts";

type Told = "state" | "addresses" | "unnamed" | "certificateFlaw";

/**
 * What the registry must say of a node: every pod that is wanted, whatever can be done for it now. What it does not name is
 * reached in clear.
 *
 * @param enrolmentOf a pod's enrolment, by its UID, if it has one.
 */
export function registryEntries(
  { enrolments, refused }: Desired,
  node: string,
  enrolmentOf: (uid: string) => Pick<Enrolment, Told> | undefined,
): RegistryEntry[] {
  const wanted = [...enrolments.values()].flatMap((wanted) => {
    const enrolment = enrolmentOf(wanted.uid);
    const { uid, namespace, name, identity } = wanted;
    const addresses = wanted.addresses.length > 0 ? wanted.addresses : enrolment?.addresses ?? [];
    const ready = enrolment?.state === "active" && enrolment.certificateFlaw === undefined;
    const entry = { uid, namespace, name, identity, node, addresses, ready };
    const unnamed = enrolment?.unnamed ?? [];
    return unnamed.length === 0 ? [entry] : [entry, { ...entry, addresses: unnamed, ready: false }];
  });
  const unserved = refused.flatMap(({ uid, namespace, name, registered }) =>
    registered === undefined ? [] : [{ uid, namespace, name, node, ready: false, ...registered }]
  );
  return [...wanted, ...unserved];
}
