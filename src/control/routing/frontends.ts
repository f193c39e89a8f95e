import { errorText } from "../../error_text.ts";
import { parseAddress } from "../../addresses.ts";
import {
  CAPACITY,
  encodeBackendKey,
  encodeEndpoint,
  encodeFrontend,
  LAYOUT,
  setOf,
} from "../../kernel/maps.ts";
import type { Redirector } from "../../kernel/redirector.ts";
import type { BpfMap } from "../../native/bpf_map.ts";
import { SystemError } from "../../native/errno.ts";
import type { Backend, Frontend } from "../rules/endpoint_choice.ts";
import { type Claim, FrontendClaims, keyOf } from "../rules/frontend_claims.ts";
import { isSameRefusal, rangeOf, type Refusal } from "../rules/refusal.ts";
import { refusedServices, type ServiceLimits } from "../rules/service_bounds.ts";
import type { ServiceChange } from "../rules/service_index.ts";
import { isSame } from "./mirrored_map.ts";
import type { Repairs, RoutingProblem } from "./problem.ts";
import { addressAt, portAt, wordsOf } from "./words.ts";

/**
 * How much of the kernel's maps a Service and a namespace may have. A Service with 1,000 ports and
 * two addresses, or with 5,000 endpoints in both families and three ports, has its place; and 32
 * namespaces that have all they may, or any number that have less, find room.
 */
export const SERVICE_LIMITS: ServiceLimits = {
  ofService: { frontends: 2_048, backends: 32_768 },
  ofNamespace: { frontends: 8_192, backends: 65_536 },
  // A frontend's new backends are written before the old ones go.
  ofAll: { frontends: CAPACITY.frontends, backends: CAPACITY.backends - 2 * 32_768 },
};

/** A frontend as it stands in the kernel's maps. */
interface Written {
  readonly frontend: Frontend;
  readonly set: number;
}

/**
 * Keeps the kernel's maps `frontends` and `backends` equal to what the Services that are redirected
 * claim. A frontend's backends are replaced by pointing it to a new set, so whoever reads them
 * meanwhile sees the old or the new ones. A Service is written whole or refused.
 */
export class Frontends {
  readonly #frontends: BpfMap;
  readonly #backends: BpfMap;
  readonly #limits: ServiceLimits;
  /** What each Service asks for, within its bounds or not. */
  readonly #wanted = new Map<string, ServiceChange>();
  /** Of the Services that are within their bounds. */
  readonly #claims = new FrontendClaims();
  /** Services beyond them, and why. */
  #beyond = new Map<string, Refusal>();
  readonly #written = new Map<string, Written>();
  /** By frontend: what could not be written, and is tried again. */
  readonly #failed = new Map<string, Refusal>();
  #lastSet: number;
  /** What an earlier agent has left is gone. */
  #isPruned = false;

  constructor(redirector: Pick<Redirector, "frontends" | "backends">, limits = SERVICE_LIMITS) {
    this.#frontends = redirector.frontends;
    this.#backends = redirector.backends;
    this.#limits = limits;
    // An earlier agent's sets are in use until they have been written anew.
    this.#lastSet = this.#backends.keys().reduce((most, key) => Math.max(most, setOf(key)), 0);
  }

  /** How many are written. */
  get size(): number {
    return this.#written.size;
  }

  /**
   * Where connections must not be taken for plain: Services beyond their bounds, and what could not
   * be written.
   */
  refusals(): Refusal[] {
    return [...this.#beyond.values(), ...this.#failed.values()];
  }

  /**
   * Frontends that several Services claim: the oldest is believed, and connections are encrypted
   * all the same.
   */
  problems(): RoutingProblem[] {
    return this.#claims.conflicts().map(({ key, services: [first, ...others] }) => ({
      where: key,
      message: `is claimed by several Services: ${first} is believed, ${others.join(", ")} not`,
      ranges: [],
    }));
  }

  /**
   * Takes over what has changed. `refuse` is called before anything is taken away, and once more
   * when something could not be written. Never throws.
   */
  apply(changes: readonly ServiceChange[], refuse: (refusals: readonly Refusal[]) => void): void {
    for (const change of changes) {
      if (change.frontends.length === 0) this.#wanted.delete(change.service);
      else this.#wanted.set(change.service, change);
    }
    const moved = changes.length === 0 ? [] : this.#judge();
    refuse(this.refusals());
    const touched = new Set(this.#failed.keys());
    for (const service of new Set([...changes.map(({ service }) => service), ...moved])) {
      const { created = 0, frontends = [] } = this.#wanted.get(service) ?? {};
      const claimed = this.#beyond.has(service) ? [] : frontends;
      for (const key of this.#claims.replace(service, created, claimed)) touched.add(key);
    }
    // What goes makes room.
    const gone = [...touched].filter((key) => this.#claims.get(key) === undefined);
    for (const key of [...gone, ...touched]) this.#write(key, this.#claims.get(key));
    refuse(this.refusals());
  }

  /** Removes what an earlier agent has left and no Service asks for any more. */
  prune(): void {
    this.#isPruned = true;
    for (const key of this.#frontends.keys()) {
      if (!this.#written.has(keyAt(key))) this.#frontends.delete(key);
    }
    const sets = new Set([...this.#written.values()].map(({ set }) => set));
    for (const key of this.#backends.keys()) {
      if (!sets.has(setOf(key))) this.#backends.delete(key);
    }
    for (const key of this.#failed.keys()) this.#write(key, this.#claims.get(key));
  }

  /** Reads the kernel's maps whole, and writes again what is not as it was written. */
  audit(): Repairs {
    if (!this.#isPruned) return {};
    for (const key of this.#failed.keys()) this.#write(key, this.#claims.get(key));
    const backend = this.#auditBackends(); // first: a frontend points to them
    return { backend, frontend: this.#auditFrontends() };
  }

  /**
   * Decides which Services are beyond their bounds; says which have come to be, or are no longer.
   */
  #judge(): string[] {
    const needs = [...this.#wanted.values()].map(({ service, created, frontends }) => ({
      service,
      created,
      frontends: frontends.length,
      backends: frontends.reduce((sum, { backends }) => sum + backends.length, 0),
    }));
    const before = this.#beyond;
    this.#beyond = new Map(
      [...refusedServices(needs, this.#limits)].map(([service, reason]) => {
        const refusal = refusalOf(service, reason, this.#wanted.get(service)?.frontends ?? []);
        const known = before.get(service);
        return [service, known !== undefined && isSameRefusal(known, refusal) ? known : refusal];
      }),
    );
    return [
      ...[...before.keys()].filter((service) => !this.#beyond.has(service)),
      ...[...this.#beyond.keys()].filter((service) => !before.has(service)),
    ];
  }

  /** Makes the kernel say what is claimed. What cannot be written stays as it was. */
  #write(key: string, claim: Claim | undefined): void {
    const before = this.#written.get(key);
    if (claim === undefined) {
      this.#failed.delete(key);
      if (before === undefined) return;
      this.#written.delete(key);
      this.#frontends.delete(encodeEndpoint(endpointOf(before.frontend)));
      this.#forget(before);
      return;
    }
    const { frontend } = claim;
    if (before !== undefined && saysSame(before.frontend, frontend)) {
      this.#written.set(key, { frontend, set: before.set }); // the equal one of before may go
      this.#failed.delete(key);
      return;
    }
    const now = { frontend, set: ++this.#lastSet };
    try {
      for (const index of frontend.backends.keys()) this.#writeBackend(now, index);
      this.#frontends.set(encodeEndpoint(endpointOf(frontend)), valueOf(now));
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      this.#forget(now);
      const consequence = before === undefined
        ? "so connections to it are refused"
        : "so connections to it go to the endpoints of before";
      this.#failed.set(key, {
        where: claim.service,
        message: `${key} cannot be written, ${consequence}; it is tried again: ${errorText(error)}`,
        ranges: before === undefined ? [rangeOf(frontend.address)] : [],
        isWide: false,
      });
      return;
    }
    this.#failed.delete(key);
    this.#written.set(key, now);
    if (before !== undefined) this.#forget(before);
  }

  #writeBackend({ set, frontend }: Written, index: number): void {
    const backend = frontend.backends[index];
    if (backend === undefined) return;
    this.#backends.set(encodeBackendKey(set, index), encodeEndpoint(endpointOf(backend)));
  }

  #forget({ set, frontend }: Written): void {
    for (const index of frontend.backends.keys()) {
      this.#backends.delete(encodeBackendKey(set, index));
    }
  }

  #auditFrontends(): number {
    const stale: Uint8Array<ArrayBuffer>[] = [];
    const right = new Set<string>();
    for (const { keys, values, count } of this.#frontends.batches()) {
      const [keyWords, valueWords] = [wordsOf(keys), wordsOf(values)];
      for (let entry = 0; entry < count; entry++) {
        const name = nameAt(keyWords, ENDPOINT_WORDS * entry);
        const written = this.#written.get(name);
        if (written === undefined) {
          stale.push(keys.slice(ENDPOINT * entry, ENDPOINT * (entry + 1)));
        } else if (isValue(valueWords, FRONTEND_WORDS * entry, written)) right.add(name);
      }
    }
    for (const key of stale) this.#frontends.delete(key);
    let repaired = stale.length;
    if (right.size === this.#written.size) return repaired;
    for (const [name, written] of this.#written) {
      if (right.has(name)) continue;
      const key = encodeEndpoint(endpointOf(written.frontend));
      repaired += this.#again(name, () => this.#frontends.set(key, valueOf(written)));
    }
    return repaired;
  }

  #auditBackends(): number {
    const stale: Uint8Array<ArrayBuffer>[] = [];
    const right = new Map<number, number>();
    const bySet = new Map([...this.#written.values()].map(({ set, frontend }) => [set, frontend]));
    for (const { keys, values, count } of this.#backends.batches()) {
      const [keyWords, valueWords] = [wordsOf(keys), wordsOf(values)];
      for (let entry = 0; entry < count; entry++) {
        const set = keyWords[2 * entry] ?? 0;
        const backend = bySet.get(set)?.backends[keyWords[2 * entry + 1] ?? 0];
        if (backend === undefined) stale.push(keys.slice(8 * entry, 8 * (entry + 1)));
        else if (isEndpoint(valueWords, ENDPOINT_WORDS * entry, backend)) {
          right.set(set, (right.get(set) ?? 0) + 1);
        }
      }
    }
    for (const key of stale) this.#backends.delete(key);
    let repaired = stale.length;
    for (const [name, written] of this.#written) {
      const { set, frontend: { backends } } = written;
      if ((right.get(set) ?? 0) === backends.length) continue;
      for (const [index, backend] of backends.entries()) {
        const there = this.#backends.get(encodeBackendKey(set, index));
        if (isSame(there, encodeEndpoint(endpointOf(backend)))) continue;
        repaired += this.#again(name, () => this.#writeBackend(written, index));
      }
    }
    return repaired;
  }

  /** Tries a repair: 1 when it succeeded. One that does not is tried at the next audit. */
  #again(name: string, write: () => void): 0 | 1 {
    try {
      write();
      return 1;
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      this.#written.delete(name);
      this.#write(name, this.#claims.get(name));
      return 0;
    }
  }
}

function refusalOf(service: string, reason: string, frontends: readonly Frontend[]): Refusal {
  return {
    where: service,
    message: `connections to it are refused: ${reason}. Give it fewer ports or endpoints, or ` +
      "divide the Services among namespaces",
    ranges: [...new Set(frontends.map(({ address }) => address))].map(rangeOf),
    isWide: false,
  };
}

function saysSame(a: Frontend, b: Frontend): boolean {
  return a.affinitySeconds === b.affinitySeconds && a.backends.length === b.backends.length &&
    a.backends.every(({ address, port }, index) =>
      address === b.backends[index]?.address && port === b.backends[index].port
    );
}

function valueOf({ set, frontend }: Written): Uint8Array<ArrayBuffer> {
  const { affinitySeconds: affinity, backends } = frontend;
  return encodeFrontend({ set, count: backends.length, affinity });
}

function isValue(words: Words, at: number, { set, frontend }: Written): boolean {
  return words[at] === set && words[at + 1] === frontend.backends.length &&
    words[at + 2] === frontend.affinitySeconds;
}

function isEndpoint(words: Words, at: number, { address, port }: Backend): boolean {
  return portAt(words, at + PORT) === port && addressAt(words, at) === address;
}

function nameAt(words: Words, at: number): string {
  return keyOf({ address: addressAt(words, at), port: portAt(words, at + PORT) });
}

/** The frontend that a key of the map is. */
function keyAt(key: Uint8Array<ArrayBuffer>): string {
  return nameAt(wordsOf(key), 0);
}

type Words = Uint32Array<ArrayBuffer>;

/** Of `struct endpoint` and `struct frontend`, in bytes and in words. */
const ENDPOINT = LAYOUT.endpoint.size;
const ENDPOINT_WORDS = ENDPOINT / 4;
const PORT = LAYOUT.endpoint.port / 4;
const FRONTEND_WORDS = LAYOUT.frontend.size / 4;

function endpointOf({ address, port }: Backend): { address: Uint8Array; port: number } {
  return { address: parseAddress(address), port };
}
