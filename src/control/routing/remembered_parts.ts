import type { Peer, RegistryPart } from "../../cluster/registry.ts";
import { formatAddress } from "../../addresses.ts";
import { decodeNumber, decodePeer, decodeText } from "../../kernel/maps.ts";
import type { Redirector } from "../../kernel/redirector.ts";
import type { BpfMap } from "../../native/bpf_map.ts";

/**
 * The registry as an earlier agent has left it in the kernel's maps: an agent that starts can tell
 * from it what has gone since. Of a pod nothing is known but its address, its node and its
 * identity. Peers of which it is not known where they stood are in one part, whose node is empty.
 */
export function rememberedParts(
  maps: Pick<Redirector, "peers" | "identities" | "slices">,
): RegistryPart[] {
  const identities = textsOf(maps.identities);
  const slices = textsOf(maps.slices);
  const parts = new Map<string, RegistryPart & { readonly peers: Peer[] }>();
  for (const { key, value } of maps.peers.entries()) {
    const peer = decodePeer(value);
    const text = slices.get(peer.slice) ?? "";
    const end = text.indexOf("/");
    const [node, slice] = [text.slice(0, Math.max(end, 0)), text.slice(end + 1)];
    const part = parts.get(text) ?? { slice, node, peers: [], refused: [], wasBelieved: true };
    parts.set(text, part);
    part.peers.push({
      address: formatAddress(key),
      identity: identities.get(peer.identity) ?? "",
      uid: "",
      pod: "?",
      node,
      slice,
      ready: peer.ready,
    });
  }
  return [...parts.values()];
}

/** What the kernel remembers of where a peer stood. */
export function textOf({ node, slice }: Pick<Peer, "node" | "slice">): string {
  return `${node}/${slice}`;
}

function textsOf(map: BpfMap): Map<number, string> {
  return new Map(
    map.entries().map(({ key, value }) => [decodeNumber(key), decodeText(value)] as const),
  );
}
