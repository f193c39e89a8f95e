import { parseAddress } from "../addresses.ts";
import {
  decodeEndpoint,
  encodeBackendKey,
  encodeEndpoint,
  encodeFrontend,
  setOf,
} from "../kernel/maps.ts";
import type { Redirector } from "../kernel/redirector.ts";
import type { BpfMap } from "../native/bpf_map.ts";
import { text } from "../native/socket.ts";
import type { Backend, Frontend } from "./endpoint_choice.ts";
import type { ServiceChange } from "./service_index.ts";

/** A frontend as it stands in the kernel's maps. */
interface Written {
  readonly key: Uint8Array<ArrayBuffer>;
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
  /** By Service, then by the frontend's text. */
  readonly #written = new Map<string, Map<string, Written>>();
  #lastSet: number;

  constructor(redirector: Pick<Redirector, "frontends" | "backends">) {
    this.#frontends = redirector.frontends;
    this.#backends = redirector.backends;
    // An earlier agent's sets are in use until they have been written anew.
    this.#lastSet = this.#backends.keys().reduce((most, key) => Math.max(most, setOf(key)), 0);
  }

  /** How many there are. */
  get size(): number {
    return [...this.#written.values()].reduce((sum, { size }) => sum + size, 0);
  }

  apply(changes: readonly ServiceChange[]): void {
    for (const { service, frontends } of changes) {
      const before = this.#written.get(service) ?? new Map<string, Written>();
      const now = new Map(frontends.map((frontend) => {
        const name = nameOf(frontend);
        return [name, this.#write(frontend, before.get(name))];
      }));
      for (const [name, { key, set, count }] of before) {
        if (now.has(name)) continue;
        this.#frontends.delete(key);
        this.#forget(set, count);
      }
      if (now.size === 0) this.#written.delete(service);
      else this.#written.set(service, now);
    }
  }

  /** Removes what an earlier agent has left and no Service asks for any more. */
  prune(): void {
    const current = [...this.#written.values()].flatMap((frontends) => [...frontends]);
    const names = new Set(current.map(([name]) => name));
    const sets = new Set(current.map(([, { set }]) => set));
    for (const key of this.#frontends.keys()) {
      if (!names.has(text(decodeEndpoint(key)))) this.#frontends.delete(key);
    }
    for (const key of this.#backends.keys()) {
      if (!sets.has(setOf(key))) this.#backends.delete(key);
    }
  }

  #write(frontend: Frontend, before: Written | undefined): Written {
    const { affinitySeconds: affinity, backends } = frontend;
    const content = JSON.stringify([affinity, backends]);
    if (before?.content === content) return before;
    const key = encodeEndpoint(endpointOf(frontend));
    const set = ++this.#lastSet;
    const count = backends.length;
    for (const [index, backend] of backends.entries()) {
      this.#backends.set(encodeBackendKey(set, index), encodeEndpoint(endpointOf(backend)));
    }
    this.#frontends.set(key, encodeFrontend({ set, count, affinity }));
    if (before !== undefined) this.#forget(before.set, before.count);
    return { key, set, count, content };
  }

  #forget(set: number, count: number): void {
    for (let index = 0; index < count; index++) this.#backends.delete(encodeBackendKey(set, index));
  }
}

function nameOf(frontend: Frontend): string {
  return text(endpointOf(frontend));
}

function endpointOf({ address, port }: Backend): { address: Uint8Array; port: number } {
  return { address: parseAddress(address), port };
}
