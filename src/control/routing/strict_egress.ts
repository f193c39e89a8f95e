import { errorText } from "../../error_text.ts";
import { type Cidr, firstAddress, parseCidr } from "../../cidr.ts";
import type { Service } from "../../cluster/services.ts";
import { encodeEgressRule, encodeRange, MAX_RULE_PORTS } from "../../kernel/maps.ts";
import { logger } from "../../log.ts";
import type { BpfMap } from "../../native/bpf_map.ts";
import { type EgressException, type EgressRule, egressRules } from "../rules/egress_rules.ts";
import { MirroredMap } from "./mirrored_map.ts";
import type { RoutingProblem } from "./problem.ts";

const log = logger("egress");

export interface StrictEgressOptions {
  /**
   * Where pods and Services are; what is elsewhere is outside the cluster, and may be connected in
   * clear.
   */
  readonly inside: readonly Cidr[];
  readonly exceptions: readonly EgressException[];
}

/**
 * Whatever the cluster's ranges are: a link-local address is that of somebody on the node, or of
 * another pod.
 */
const ALWAYS_INSIDE = ["fe80::/10"].map(parseCidr).filter((range) => range !== undefined);

/** Keeps the kernel's map `egress_rules`, by which pods with strict egress are judged. */
export class StrictEgress {
  readonly #map: MirroredMap;
  #problem: string | undefined;
  #content: string | undefined;

  constructor(map: BpfMap, readonly options: StrictEgressOptions) {
    this.#map = new MirroredMap(map);
  }

  /**
   * The API server is always excepted: pods find it by its Service, `default/kubernetes`. Never
   * throws.
   */
  apply(services: ReadonlyMap<string, Service>): void {
    const rules = this.#rules(services.get("default/kubernetes"));
    if (rules === undefined) return;
    const content = JSON.stringify(
      rules.map(({ range, ports }) => [range.first.toString(16), range.prefix, ports]),
    );
    if (content === this.#content) return;
    this.#content = content;
    this.#map.apply(
      new Map(
        rules.map(({ range, ports }) => [
          encodeRange(firstAddress(range), range.prefix).toHex(),
          encodeEgressRule(ports),
        ]),
      ),
    );
  }

  problems(): RoutingProblem[] {
    const message = this.#problem ?? this.#map.failure?.message;
    return message === undefined
      ? []
      : [{ where: "strict egress", message: `its rules stay as they are: ${message}`, ranges: [] }];
  }

  /** How many entries of the kernel's map were wrong. */
  audit(): number {
    return this.#map.audit();
  }

  /** Undefined when there are too many. */
  #rules(apiServer: Service | undefined): EgressRule[] | undefined {
    const { inside, exceptions } = this.options;
    try {
      const rules = egressRules(
        [...inside, ...ALWAYS_INSIDE],
        [...exceptions, ...exceptionsFor(apiServer)],
        MAX_RULE_PORTS,
      );
      this.#problem = undefined;
      return rules;
    } catch (error) {
      this.#problem = errorText(error);
      log.error("the rules of strict egress stay as they are: {error}", {
        error: errorText(error),
      });
      return undefined;
    }
  }
}

function exceptionsFor(service: Service | undefined): EgressException[] {
  return (service?.clusterIps ?? []).flatMap((address) => {
    const range = parseCidr(`${address}/${address.includes(":") ? 128 : 32}`);
    return range === undefined ? [] : service?.ports.map(({ port }) => ({ range, port })) ?? [];
  });
}
