import type { RegistryPart } from "../../cluster/registry.ts";

/**
 * Keeps what the registry said for a while when a part of it goes whole. An agent takes its pods out of its part, and
 * leaves that empty; a part that goes with pods in it was perhaps deleted with its Node object, or by somebody: its agent
 * will write it again, and its pods must not be reached in clear until then.
 */
export class VanishedParts {
  #last: ReadonlyMap<string, RegistryPart> = new Map();
  readonly #kept = new Map<string, { readonly part: RegistryPart; readonly until: number }>();

  /** @param keepMilliseconds must be less than a pod that leaves goes on answering its peers. */
  constructor(readonly keepMilliseconds: number) {}

  /**
   * The parts that there are, and those that were there until a while ago.
   *
   * @param now by the monotonic clock, in milliseconds.
   */
  apply(parts: readonly RegistryPart[], now: number): readonly RegistryPart[] {
    const present = new Map(parts.map((part) => [part.slice, part]));
    for (const [slice, part] of this.#last) {
      if (present.has(slice) || part.peers.length === 0) continue;
      this.#kept.set(slice, { part, until: now + this.keepMilliseconds });
    }
    for (const [slice, { until }] of this.#kept) {
      if (present.has(slice) || until <= now) this.#kept.delete(slice);
    }
    this.#last = present;
    return this.#kept.size === 0
      ? parts
      : [...parts, ...[...this.#kept.values()].map(({ part }) => part)];
  }

  /** When the next part is to be forgotten; undefined: none is kept. */
  get next(): number | undefined {
    const times = [...this.#kept.values()].map(({ until }) => until);
    return times.length === 0 ? undefined : Math.min(...times);
  }
}
