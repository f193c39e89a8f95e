import type { ClusterObjects } from "../../cluster/cluster.ts";
import type { RegistryEntry } from "../../cluster/registry.ts";
import type { Pod } from "../../cluster/objects.ts";
import { isInOne, podRange } from "../../pod_ranges.ts";
import type { Enrolment } from "../pods/enrolment.ts";
import { type Desired, hasEnded } from "./desired.ts";

type Told = "state" | "addresses" | "unnamed" | "certificateFlaw";

/**
 * What the registry must say of a node: every pod that is wanted, whatever can be done for it now.
 * What it does not name is reached in clear. An address that a pod has and its object does not name
 * is the pod's only as long as no other object names it, and only where it can be believed: a
 * process with CAP_NET_ADMIN may give its pod anybody's.
 *
 * @param named the addresses that objects of this node's pods name.
 * @param isOurs whether an address is one of this node's pods', whoever has it.
 * @param enrolmentOf a pod's enrolment, by its UID, if it has one.
 */
export function registryEntries(
  { enrolments, refused }: Desired,
  node: string,
  named: ReadonlySet<string>,
  isOurs: (address: string) => boolean,
  enrolmentOf: (uid: string) => Pick<Enrolment, Told> | undefined,
): RegistryEntry[] {
  const wanted = [...enrolments.values()].flatMap((wanted) => {
    const enrolment = enrolmentOf(wanted.uid);
    const { uid, namespace, name, identity } = wanted;
    const addresses = wanted.addresses.length > 0 ? wanted.addresses : enrolment?.addresses ?? [];
    const ready = enrolment?.state === "active" && enrolment.certificateFlaw === undefined;
    const entry = { uid, namespace, name, identity, node, addresses, ready };
    const unnamed = (enrolment?.unnamed ?? []).filter((address) =>
      !named.has(address) && isOurs(address)
    );
    return unnamed.length === 0 ? [entry] : [entry, { ...entry, addresses: unnamed, ready: false }];
  });
  const unserved = refused.flatMap(({ uid, namespace, name, registered }) =>
    registered === undefined ? [] : [{ uid, namespace, name, node, ready: false, ...registered }]
  );
  return [...wanted, ...unserved];
}

/** What the objects of a node's pods say that these have, but for pods that have ended. */
export function namedAddresses(pods: readonly Pod[], node: string): Set<string> {
  return new Set(
    pods.flatMap((pod) => pod.nodeName === node && !hasEnded(pod) ? pod.addresses : []),
  );
}

/**
 * Whether an address is one of a node's pods', whoever has it: one of the node's podCIDRs, where
 * these are in use, or one that the registry names for its pods already. In a directory, which has
 * no Nodes, every one.
 */
export function ownAddresses(
  { nodes }: Pick<ClusterObjects, "nodes">,
  node: string,
  usesPodCidrs: boolean,
  registered: Iterable<{ readonly addresses: readonly string[] }>,
): (address: string) => boolean {
  if (nodes.size === 0) return () => true;
  const cidrs = usesPodCidrs ? nodes.get(node)?.podCidrs ?? [] : [];
  const ranges = cidrs.flatMap((cidr) => podRange(cidr) ?? []);
  const named = new Set([...registered].flatMap(({ addresses }) => addresses));
  return (address) => isInOne(ranges, address) || named.has(address);
}
