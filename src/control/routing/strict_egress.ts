import { type Cidr, firstAddress, parseCidr } from "../../cidr.ts";
import { encodeEgressRule, encodeRange, MAX_RULE_PORTS } from "../../kernel/maps.ts";
import { logger } from "../../log.ts";
import type { BpfMap } from "../../native/bpf_map.ts";
import type { Service } from "../../cluster/services.ts";
import { type EgressException, type EgressRule, egressRules } from "../rules/egress_rules.ts";

const log = logger("egress");

export interface StrictEgressOptions {
  /** Where pods and Services are; what is elsewhere is outside the cluster, and may be connected in clear. */
  readonly inside: readonly Cidr[];
  readonly exceptions: readonly EgressException[];
}

/** Keeps the kernel's map `egress_rules`, by which pods with strict egress are judged. */
export class StrictEgress {
  #content: string | undefined;

  constructor(readonly map: BpfMap, readonly options: StrictEgressOptions) {}

  /** The API server is always excepted: pods find it by its Service, `default/kubernetes`. */
  apply(services: ReadonlyMap<string, Service>): void {
    const { inside, exceptions } = this.options;
    const rules = egressRules(
      inside,
      [...exceptions, ...apiServer(services.get("default/kubernetes"))],
      MAX_RULE_PORTS,
    );
    const content = JSON.stringify(
      rules.map(({ range, ports }) => [range.first.toString(16), range.prefix, ports]),
    );
    if (content === this.#content) return;
    this.#content = content;
    this.#write(rules);
    log.debug("{count} ranges are inside the cluster for strict egress", { count: rules.length });
  }

  #write(rules: readonly EgressRule[]): void {
    const keys = new Set<string>();
    for (const { range, ports } of rules) {
      const key = encodeRange(firstAddress(range), range.prefix);
      keys.add(key.toHex());
      this.map.set(key, encodeEgressRule(ports));
    }
    for (const key of this.map.keys()) if (!keys.has(key.toHex())) this.map.delete(key);
  }
}

function apiServer(service: Service | undefined): EgressException[] {
  return (service?.clusterIps ?? []).flatMap((address) => {
    const range = parseCidr(`${address}/${address.includes(":") ? 128 : 32}`);
    return range === undefined ? [] : service?.ports.map(({ port }) => ({ range, port })) ?? [];
  });
}
