import type { Peer, RegistryPart } from "../../cluster/registry.ts";

/** What the registry says of one pod of this node, as the watch shows it. */
export interface Registered {
  /** Its node's agent can serve it: all of its addresses are named so. */
  readonly ready: boolean;
  /** Canonical text. */
  readonly addresses: readonly string[];
  /** SPIFFE ID. */
  readonly identity: string;
}

/** What the registry says of a node's own pods, by UID. */
export function registeredOf(
  registry: readonly RegistryPart[],
  nodeName: string,
): Map<string, Registered> {
  const peers = new Map<string, Peer[]>();
  for (const part of registry) {
    // A part is one node's whole.
    if (part.peers[0]?.node !== nodeName) continue;
    for (const peer of part.peers) peers.set(peer.uid, [...peers.get(peer.uid) ?? [], peer]);
  }
  return new Map(
    [...peers].map(([uid, named]) => [uid, {
      ready: named.every(({ ready }) => ready),
      addresses: named.map(({ address }) => address),
      identity: named[0]?.identity ?? "",
    }]),
  );
}

/** Whether peers that read this encrypt to the pod, at every one of these addresses. */
export function namesReady(
  registered: Registered | undefined,
  { identity, addresses }: { readonly identity: string; readonly addresses: readonly string[] },
): boolean {
  return registered !== undefined && registered.ready && registered.identity === identity &&
    addresses.length > 0 && addresses.every((address) => registered.addresses.includes(address));
}

/**
 * Why pods of other nodes may connect to a pod in clear though the registry is to name it;
 * undefined: all that read the registry encrypt.
 *
 * @param hasNode whether the pod's node has a Node object, or nothing has.
 * @param doubted addresses that the other nodes' agents do not believe, and why.
 */
export function whyUnknown(
  registered: Registered | undefined,
  pod: { readonly identity: string; readonly addresses: readonly string[] },
  { nodeName, hasNode, doubted }: {
    readonly nodeName: string;
    readonly hasNode: boolean;
    readonly doubted: ReadonlyMap<string, string>;
  },
): string | undefined {
  if (!namesReady(registered, pod)) return NOT_NAMED;
  if (!hasNode) {
    return `there is no Node ${nodeName}, without which others do not believe its agent`;
  }
  const doubts = pod.addresses.flatMap((address) => {
    const why = doubted.get(address);
    return why === undefined
      ? []
      : `other nodes do not believe that it has ${address}, which ${why}`;
  });
  return doubts.length === 0 ? undefined : doubts.join("; ");
}

export const NOT_NAMED = "not every node's registry may name it yet";
