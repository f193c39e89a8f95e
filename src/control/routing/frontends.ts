import { parseAddress } from "../../addresses.ts";
import {
  decodeEndpoint,
  encodeBackendKey,
  encodeEndpoint,
  encodeFrontend,
  setOf,
} from "../../kernel/maps.ts";
import type { Redirector } from "../../kernel/redirector.ts";
import { logger } from "../../log.ts";
import type { BpfMap } from "../../native/bpf_map.ts";
import { SystemError } from "../../native/errno.ts";
import { text } from "../../native/socket.ts";
import type { Backend, Frontend } from "../rules/endpoint_choice.ts";
import type { ServiceChange } from "../rules/service_index.ts";

const log = logger("services");

/** A frontend as it stands in the kernel's maps. */
interface Written {
  readonly address: string;
  readonly port: number;
  readonly set: number;
  readonly count: number;
  /** Tells whether another one says the same. */
  readonly content: string;
}

/**
 * Keeps the kernel's maps `frontends` and `backends` equal to the Services that are redirected. A frontend's
 * backends are replaced by pointing it to a new set, so whoever reads them meanwhile sees the old or the new ones.
 */
export class Frontends {
  readonly #frontends: BpfMap;
  readonly #backends: BpfMap;
  /** By Service. */
  readonly #written = new Map<string, readonly Written[]>();
  /** By Service: what could not be written. */
  readonly #problems = new Map<string, string>();
  #lastSet: number;

  constructor(redirector: Pick<Redirector, "frontends" | "backends">) {
    this.#frontends = redirector.frontends;
    this.#backends = redirector.backends;
    // An earlier agent's sets are in use until they have been written anew.
    this.#lastSet = this.#backends.keys().reduce((most, key) => Math.max(most, setOf(key)), 0);
  }

  /** How many there are. */
  get size(): number {
    return [...this.#written.values()].reduce((sum, { length }) => sum + length, 0);
  }

  /** Services that are not redirected as they should be, and why. */
  problems(): { readonly where: string; readonly message: string }[] {
    return [...this.#problems].map(([where, message]) => ({ where, message }));
  }

  apply(changes: readonly ServiceChange[]): void {
    for (const { service, frontends } of changes) {
      this.#problems.delete(service);
      const before = this.#written.get(service) ?? [];
      const now = frontends.map((frontend) =>
        this.#write(service, frontend, before.find((each) => isSame(each, frontend)))
      );
      for (const old of before) {
        if (now.some((each) => isSame(each, old))) continue;
        this.#frontends.delete(encodeEndpoint(endpointOf(old)));
        this.#forget(old);
      }
      if (now.length === 0) this.#written.delete(service);
      else this.#written.set(service, now);
    }
  }

  /** Removes what an earlier agent has left and no Service asks for any more. */
  prune(): void {
    const current = [...this.#written.values()].flat();
    const names = new Set(current.map((each) => text(endpointOf(each))));
    const sets = new Set(current.map(({ set }) => set));
    for (const key of this.#frontends.keys()) {
      if (!names.has(text(decodeEndpoint(key)))) this.#frontends.delete(key);
    }
    for (const key of this.#backends.keys()) {
      if (!sets.has(setOf(key))) this.#backends.delete(key);
    }
  }

  /** A full map costs the Service that met it, and no other: it has the backends that found room, or none. */
  #write(service: string, frontend: Frontend, before: Written | undefined): Written {
    const { address, port, affinitySeconds: affinity, backends } = frontend;
    const content = `${affinity} ${backends.map((each) => `${each.address} ${each.port}`).join()}`;
    if (before?.content === content) return before;
    const set = ++this.#lastSet;
    let count = 0;
    try {
      for (const backend of backends) {
        this.#backends.set(encodeBackendKey(set, count), encodeEndpoint(endpointOf(backend)));
        count++;
      }
    } catch (error) {
      this.#failed(service, `${count} of ${backends.length} endpoints are used`, error);
    }
    try {
      const value = encodeFrontend({ set, count, affinity });
      this.#frontends.set(encodeEndpoint(endpointOf(frontend)), value);
    } catch (error) {
      this.#failed(service, "its connections are left to kube-proxy, in clear", error);
    }
    if (before !== undefined) this.#forget(before);
    // What could not be written is tried again when its Service is next looked at.
    return { address, port, set, count, content: this.#problems.has(service) ? "" : content };
  }

  #failed(service: string, what: string, error: unknown): void {
    if (!(error instanceof SystemError)) throw error;
    this.#problems.set(service, `${what}: ${error.message}`);
    log.error("Service {service}: {what}: {error}", { service, what, error: error.message });
  }

  #forget({ set, count }: Written): void {
    for (let index = 0; index < count; index++) this.#backends.delete(encodeBackendKey(set, index));
  }
}

function isSame(a: Backend, b: Backend): boolean {
  return a.address === b.address && a.port === b.port;
}

function endpointOf({ address, port }: Backend): { address: Uint8Array; port: number } {
  return { address: parseAddress(address), port };
}
