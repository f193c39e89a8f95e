import type { Frontend } from "./endpoint_choice.ts";
import { byAge } from "./service_bounds.ts";

/** A Service that says where the connections to one of its addresses and ports go. */
export interface Claim {
  /** `namespace/name`. */
  readonly service: string;
  readonly created: number;
  readonly frontend: Frontend;
}

/**
 * Whose each frontend is. While a Service is replaced by another, both may claim an address, or two
 * may swap theirs: a frontend is there as long as anybody claims it, and the oldest claim is
 * believed, as on every other node.
 */
export class FrontendClaims {
  /** By frontend; the one that is believed first. */
  readonly #claims = new Map<string, Claim[]>();
  /** By Service. */
  readonly #frontends = new Map<string, readonly Frontend[]>();
  readonly #contested = new Set<string>();

  get size(): number {
    return this.#claims.size;
  }

  /** The one that is believed. */
  get(key: string): Claim | undefined {
    return this.#claims.get(key)?.[0];
  }

  /** Frontends that several Services claim, the one that is believed first. */
  conflicts(): { readonly key: string; readonly services: readonly string[] }[] {
    return [...this.#contested].map((key) => ({
      key,
      services: this.#claims.get(key)?.map(({ service }) => service) ?? [],
    }));
  }

  *[Symbol.iterator](): Generator<[string, Claim]> {
    for (const [key, [claim]] of this.#claims) if (claim !== undefined) yield [key, claim];
  }

  /** Makes these all that a Service claims; the keys of those that it claims or has claimed. */
  replace(service: string, created: number, frontends: readonly Frontend[]): string[] {
    const touched = new Set<string>();
    for (const frontend of this.#frontends.get(service) ?? []) {
      const key = keyOf(frontend);
      touched.add(key);
      this.#store(key, this.#claims.get(key)?.filter((claim) => claim.service !== service) ?? []);
    }
    for (const frontend of frontends) {
      const key = keyOf(frontend);
      touched.add(key);
      const others = this.#claims.get(key)?.filter((claim) => claim.service !== service) ?? [];
      this.#store(key, [...others, { service, created, frontend }].sort(byAge));
    }
    if (frontends.length === 0) this.#frontends.delete(service);
    else this.#frontends.set(service, frontends);
    return [...touched];
  }

  #store(key: string, claims: Claim[]): void {
    if (claims.length === 0) this.#claims.delete(key);
    else this.#claims.set(key, claims);
    if (claims.length > 1) this.#contested.add(key);
    else this.#contested.delete(key);
  }
}

/** `address:port`, IPv6 in brackets. */
export function keyOf({ address, port }: { address: string; port: number }): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
