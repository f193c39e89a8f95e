import type { Peer } from "../../cluster/registry.ts";
import type { Service, ServiceEndpoints } from "../../cluster/services.ts";
import { type Frontend, frontendsOf, type Locality, preferReady } from "./endpoint_choice.ts";

/**
 * What has become of a Service: the frontends that are to be redirected now, none when it is gone.
 */
export interface ServiceChange {
  /** `namespace/name`. */
  readonly service: string;
  /** Milliseconds since 1970; 0 when it is not known. */
  readonly created: number;
  readonly frontends: readonly Frontend[];
}

type Objects<T> = ReadonlyMap<string, T>;

/**
 * Which Services are redirected: those with an enrolled pod among their endpoints. What it says is
 * a function of the objects and of the peers; only the work follows the changes, so that one among
 * 50,000 endpoints costs little.
 */
export class ServiceIndex {
  #services: Objects<Service> = new Map();
  #endpoints: Objects<ServiceEndpoints> = new Map();
  #zone: string | undefined;
  /** The Services that have frontends. */
  readonly #redirected = new Set<string>();

  constructor(
    readonly nodeName: string,
    readonly findPeer: (address: string) => Pick<Peer, "ready"> | undefined,
  ) {}

  /**
   * @param services by `namespace/name`; one that has not changed is the same object as before, as
   * with `endpoints`.
   * @param movedPeers addresses that have become peers or are none any more, or whose peers can or
   * cannot be served.
   */
  update(
    services: Objects<Service>,
    endpoints: Objects<ServiceEndpoints>,
    zone: string | undefined,
    movedPeers: ReadonlySet<string>,
  ): ServiceChange[] {
    const touched = new Set(zone === this.#zone ? [] : services.keys());
    for (const key of changedKeys(this.#services, services)) touched.add(key);
    for (const key of changedKeys(this.#endpoints, endpoints)) {
      for (const slice of [this.#endpoints.get(key), endpoints.get(key)]) {
        if (slice !== undefined) touched.add(serviceOf(slice));
      }
    }
    if (movedPeers.size > 0) {
      for (const slice of endpoints.values()) {
        if (slice.endpoints.some(({ address }) => movedPeers.has(address))) {
          touched.add(serviceOf(slice));
        }
      }
    }
    // Copies: the source may go on changing its own.
    this.#services = new Map(services);
    this.#endpoints = new Map(endpoints);
    this.#zone = zone;
    return this.#changes(touched);
  }

  #changes(touched: ReadonlySet<string>): ServiceChange[] {
    if (touched.size === 0) return [];
    const slices = new Map<string, ServiceEndpoints[]>();
    for (const slice of this.#endpoints.values()) {
      const service = serviceOf(slice);
      if (!touched.has(service)) continue;
      const others = slices.get(service);
      if (others === undefined) slices.set(service, [slice]);
      else others.push(slice);
    }
    const locality: Locality = { node: this.nodeName, zone: this.#zone };
    return [...touched].flatMap((key) => {
      const service = this.#services.get(key);
      const frontends = service === undefined
        ? []
        : this.#redirectedOf(frontendsOf(service, slices.get(key) ?? [], locality));
      const created = service?.created ?? 0;
      const was = this.#redirected.has(key);
      if (frontends.length === 0) {
        this.#redirected.delete(key);
        return was ? [{ service: key, created, frontends }] : [];
      }
      this.#redirected.add(key);
      return [{ service: key, created, frontends }];
    });
  }

  #redirectedOf(frontends: readonly Frontend[]): Frontend[] {
    return frontends
      .filter(({ backends }) => backends.some(({ address }) => this.findPeer(address)))
      .map((frontend) => ({
        ...frontend,
        backends: preferReady(
          frontend.backends,
          (address) => this.findPeer(address)?.ready === false,
        ),
      }));
  }
}

function changedKeys<T>(before: Objects<T>, now: Objects<T>): string[] {
  const changed: string[] = [];
  for (const [key, item] of now) if (before.get(key) !== item) changed.push(key);
  for (const key of before.keys()) if (!now.has(key)) changed.push(key);
  return changed;
}

/** `namespace/name` of the Service that a slice belongs to. */
function serviceOf({ namespace, service }: ServiceEndpoints): string {
  return `${namespace}/${service}`;
}
