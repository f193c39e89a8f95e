import { canonicalAddress } from "../addresses.ts";
import { parseObject } from "./parse.ts";
import { NodeSchema } from "./schemas.ts";

/** What is kept of a core/v1 Node. */
export interface NodeFacts {
  readonly name: string;
  /** Its label topology.kubernetes.io/zone. */
  readonly zone: string | undefined;
  /**
   * The ranges of its pods' addresses, which nobody can change once they are set; often unused, and
   * then often empty.
   */
  readonly podCidrs: readonly string[];
  /** Canonical text; its kubelet says so. */
  readonly addresses: readonly string[];
}

/** @throws {ObjectError} when `value` is no Node. */
export function readNode(value: unknown, path: readonly (string | number)[] = []): NodeFacts {
  const { metadata, spec, status } = parseObject(NodeSchema, value, path);
  const cidrs = spec?.podCIDRs ?? (spec?.podCIDR === undefined ? [] : [spec.podCIDR]);
  return {
    name: metadata.name,
    zone: metadata.labels?.["topology.kubernetes.io/zone"],
    podCidrs: cidrs.filter((cidr) => cidr !== ""),
    addresses: (status?.addresses ?? []).map(({ address }) => canonicalAddress(address))
      .filter((address) => address !== undefined),
  };
}

/**
 * Whether nothing that is kept of it has changed: kubelet writes its Node's status every few
 * minutes.
 */
export function isSameNode(a: NodeFacts, b: NodeFacts): boolean {
  return a.name === b.name && a.zone === b.zone && a.podCidrs.join() === b.podCidrs.join() &&
    a.addresses.join() === b.addresses.join();
}
