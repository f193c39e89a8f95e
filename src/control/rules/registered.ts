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
