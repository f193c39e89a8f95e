import { decodeNumber, decodeText, encodeNumber } from "../../kernel/maps.ts";
import type { BpfMap } from "../../native/bpf_map.ts";
import { SystemError } from "../../native/errno.ts";

/**
 * Texts that many entries of another map have in common, in a map of their own by number, as long
 * as one of these has them. What could not be written is written by an audit.
 */
export class NumberedTexts {
  readonly #map: BpfMap;
  readonly #encode: (text: string) => Uint8Array<ArrayBuffer>;
  readonly #most: number;
  readonly #known = new Map<string, Numbered>();
  readonly #used: Set<number>;
  /** An earlier agent's numbers, which entries may refer to until all have been written anew. */
  readonly #earlier: Set<number>;
  #last: number;

  /**
   * @param most the greatest number. One that is free again is not taken before all others have
   * been.
   */
  constructor(map: BpfMap, encode: (text: string) => Uint8Array<ArrayBuffer>, most: number) {
    this.#map = map;
    this.#encode = encode;
    this.#most = most;
    this.#earlier = new Set(map.keys().map(decodeNumber));
    this.#used = new Set(this.#earlier);
    this.#last = [...this.#earlier].reduce((most, number) => Math.max(most, number), 0);
  }

  /** 0, which no text has, for one that nobody uses, or that there was no number for. */
  numberOf(name: string): number {
    return this.#known.get(name)?.number ?? 0;
  }

  /** One entry more has the text of that name. */
  use(name: string, text = name): void {
    const known = this.#known.get(name);
    if (known?.text === text) {
      known.uses++;
      return;
    }
    const number = known?.number ?? this.#free();
    this.#known.set(name, { number, text, uses: (known?.uses ?? 0) + 1 });
    if (number === 0) return;
    this.#used.add(number);
    this.#write(text, number);
  }

  release(name: string): void {
    const known = this.#known.get(name);
    if (known === undefined || --known.uses > 0) return;
    this.#known.delete(name);
    if (known.number !== 0) this.#delete(known.number);
  }

  /** Forgets the numbers of an earlier agent. */
  prune(): void {
    for (const number of this.#earlier) this.#delete(number);
    this.#earlier.clear();
  }

  /** How many were missing or wrong. */
  audit(): number {
    let repaired = 0;
    const found = new Map<number, string>();
    for (const { key, value } of this.#map.entries()) {
      found.set(decodeNumber(key), decodeText(value));
    }
    for (const { number, text } of this.#known.values()) {
      if (number === 0) continue;
      if (found.get(number) !== text) repaired += this.#write(text, number) ? 1 : 0;
      found.delete(number);
    }
    for (const number of found.keys()) this.#map.delete(encodeNumber(number));
    return repaired + found.size;
  }

  #free(): number {
    if (this.#used.size >= this.#most) return 0;
    do this.#last = this.#last % this.#most + 1; while (this.#used.has(this.#last));
    return this.#last;
  }

  #delete(number: number): void {
    this.#used.delete(number);
    this.#map.delete(encodeNumber(number));
  }

  #write(text: string, number: number): boolean {
    try {
      this.#map.set(encodeNumber(number), this.#encode(text));
      return true;
    } catch (error) {
      if (error instanceof SystemError) return false;
      throw error;
    }
  }
}

interface Numbered {
  readonly number: number;
  readonly text: string;
  uses: number;
}
