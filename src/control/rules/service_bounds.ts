import { compare } from "../../order.ts";
import { fairShare } from "./fair_share.ts";

/** What a Service needs of the kernel's maps. */
export interface ServiceNeed {
  /** `namespace/name`. */
  readonly service: string;
  /** Milliseconds since 1970; 0 when it is not known. */
  readonly created: number;
  /** Its addresses times its ports. */
  readonly frontends: number;
  /** Of all its frontends. */
  readonly backends: number;
}

/** How many frontends and backends there may be. */
export interface ServiceLimits {
  readonly ofService: Amounts;
  readonly ofNamespace: Amounts;
  readonly ofAll: Amounts;
}

interface Amounts {
  readonly frontends: number;
  readonly backends: number;
}

/**
 * The Services that are beyond their own bound or their namespace's, and why. Nothing that one
 * namespace asks for takes anything from another that asks for less than its share; among a
 * namespace's Services the older ones go first, so that every agent decides alike and a new Service
 * never costs an old one its place.
 */
export function refusedServices(
  needs: Iterable<ServiceNeed>,
  limits: ServiceLimits,
): Map<string, string> {
  const refused = new Map<string, string>();
  const namespaces = new Map<string, Namespace>();
  for (const need of needs) {
    const reason = beyond(need, limits.ofService, "a Service");
    if (reason !== undefined) {
      refused.set(need.service, reason);
      continue;
    }
    const name = need.service.slice(0, need.service.indexOf("/"));
    const namespace = namespaces.get(name) ?? { needs: [], frontends: 0, backends: 0 };
    namespace.needs.push(need);
    namespace.frontends += need.frontends;
    namespace.backends += need.backends;
    namespaces.set(name, namespace);
  }
  const share = shareOf([...namespaces.values()], limits);
  for (const namespace of namespaces.values()) {
    if (beyond(namespace, share, "") !== undefined) refuseLatest(namespace.needs, share, refused);
  }
  return refused;
}

interface Namespace extends Amounts {
  readonly needs: ServiceNeed[];
  frontends: number;
  backends: number;
}

function shareOf(namespaces: readonly Amounts[], { ofNamespace, ofAll }: ServiceLimits): Amounts {
  const share = (of: keyof Amounts) => {
    const bounded = namespaces.map((each) => Math.min(each[of], ofNamespace[of]));
    return Math.min(ofNamespace[of], fairShare(bounded, ofAll[of]));
  };
  return { frontends: share("frontends"), backends: share("backends") };
}

function refuseLatest(needs: ServiceNeed[], share: Amounts, refused: Map<string, string>): void {
  const used = { frontends: 0, backends: 0 };
  for (const need of needs.sort(byAge)) {
    const together = {
      frontends: used.frontends + need.frontends,
      backends: used.backends + need.backends,
    };
    const reason = beyond(together, share, "its namespace");
    if (reason !== undefined) refused.set(need.service, reason);
    else Object.assign(used, together);
  }
}

/** Why the amounts are too much for `whom`; undefined when they are not. */
function beyond(amounts: Amounts, most: Amounts, whom: string): string | undefined {
  if (amounts.frontends > most.frontends) {
    return `with it ${whom} would have ${amounts.frontends} frontends (addresses times ports), at most ` +
      `${most.frontends} are possible`;
  }
  if (amounts.backends > most.backends) {
    return `with it ${whom} would have ${amounts.backends} backends (frontends times endpoints), at most ` +
      `${most.backends} are possible`;
  }
  return undefined;
}

/** Older first; by code unit then, the same on every node. */
export function byAge(
  a: { readonly service: string; readonly created: number },
  b: { readonly service: string; readonly created: number },
): number {
  return a.created - b.created || compare(a.service, b.service);
}
