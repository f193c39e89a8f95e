/** What a pod with `kube-gateway.io/egress: strict` may still connect to in clear. */
import { type Cidr, covers, parseCidr } from "../../cidr.ts";

/** `CIDR` or `CIDR:PORT`, IPv6 as `[CIDR]:PORT`. */
export interface EgressException {
  readonly range: Cidr;
  /** Undefined: every one. */
  readonly port: number | undefined;
}

/**
 * What is allowed in one range inside the cluster; the longest range that has an address decides.
 */
export interface EgressRule {
  readonly range: Cidr;
  readonly ports: "every" | readonly number[];
}

/** The exception in `text`, or undefined when it is none. */
export function parseEgressException(text: string): EgressException | undefined {
  const match = /^\[([^\]]+)\](?::(\d{1,5}))?$/.exec(text) ?? // [fd00::/8]:53
    /^([0-9.]+\/\d+)(?::(\d{1,5}))?$/.exec(text) ?? // 10.0.0.0/8:53
    /^([0-9a-fA-F:.]+\/\d+)$/.exec(text); // fd00::/8
  const range = parseCidr(match?.[1] ?? "");
  const port = match?.[2] === undefined ? undefined : Number(match[2]);
  if (range === undefined || (port !== undefined && (port < 1 || port > 65_535))) return undefined;
  return { range, port };
}

/**
 * The rules that follow from which ranges are the cluster's and what is excepted. Each says
 * everything about its range, since the kernel finds the longest one only: what a wider exception
 * allows is repeated in it.
 *
 * @throws {TypeError} when a rule would need more than `mostPorts` ports.
 */
export function egressRules(
  inside: readonly Cidr[],
  exceptions: readonly EgressException[],
  mostPorts: number,
): EgressRule[] {
  const ranges = new Map<string, Cidr>();
  for (const range of inside) ranges.set(keyOf(range), range);
  for (const { range } of exceptions) {
    if (inside.some((each) => covers(each, range))) ranges.set(keyOf(range), range);
  }
  return [...ranges.values()].map((range) => {
    const valid = exceptions.filter((exception) => covers(exception.range, range));
    if (valid.some(({ port }) => port === undefined)) return { range, ports: "every" };
    const ports = [...new Set(valid.flatMap(({ port }) => port ?? []))].sort((a, b) => a - b);
    if (ports.length > mostPorts) {
      throw new TypeError(`more than ${mostPorts} ports are excepted for one range of addresses`);
    }
    return { range, ports };
  });
}

function keyOf({ first, prefix }: Cidr): string {
  return `${first}/${prefix}`;
}
