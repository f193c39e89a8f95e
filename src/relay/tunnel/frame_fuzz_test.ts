/**
 * A million inputs for the frame parser: whatever comes, and however it is cut, it says the same,
 * throws nothing but FrameError, and keeps nothing. frame_test.ts holds it against another parser
 * of the same format.
 */
import { strictEqual } from "node:assert/strict";
import { generator, mutate, type Random } from "../../random_for_tests.ts";
import {
  FRAME,
  FrameError,
  type FrameHandler,
  FrameReader,
  HEADER_SIZE,
  MAX_DATA,
  type Open,
  writeHeader,
} from "./frame.ts";

const CASES = 1_000_000;
/** Of the first case; each case has the next one, so that one alone can be run again. */
const SEED = 0x6b67_0000;
/** Every place at which a short input can be cut in two is tried for one case of so many. */
const EVERY_CUT = 200;
const KEPT_BYTES = 64 * 2 ** 20;

Deno.test("a million inputs: the same frames or FrameError, however they are cut", () => {
  const input = new Input();
  const before = Deno.memoryUsage().rss;
  let [refused, frames] = [0, 0];
  for (let number = 0; number < CASES; number++) {
    const seed = SEED + number;
    const random = generator(seed);
    input.fill(random);
    const { bytes, length } = input;
    const whole = parse(bytes, length, () => length);
    const pieces = parse(bytes, length, () => random(8) === 0 ? random(2000) : random(12));
    if (!same(whole, pieces)) fail(seed, input, whole, pieces);
    if (number % EVERY_CUT === 0 && length <= 200) {
      for (let cut = 0; cut <= length; cut++) {
        let piece = 0;
        const cutOnce = parse(bytes, length, () => piece++ === 0 ? cut : length);
        if (!same(whole, cutOnce)) fail(seed, input, whole, cutOnce);
      }
    }
    if (whole.error !== "") refused++;
    frames += whole.events;
  }
  // Both sorts of inputs have to be there, and enough frames in them, for this to mean anything.
  strictEqual(refused > CASES / 4 && refused < CASES * 3 / 4, true, `${refused} were refused`);
  strictEqual(frames > CASES, true, `${frames} frames`);
  const kept = Deno.memoryUsage().rss - before;
  strictEqual(kept < KEPT_BYTES, true, `${kept} bytes more than before`);
});

/** What a reader has said of an input. */
interface Outcome {
  /** Frames, each piece of DATA not counted by itself. */
  readonly events: number;
  /** Of all that was said, in its order. */
  readonly digest: number;
  readonly midFrame: boolean;
  /** The FrameError's message, or nothing. */
  readonly error: string;
}

function same(one: Outcome, other: Outcome): boolean {
  return one.digest === other.digest && one.events === other.events &&
    one.midFrame === other.midFrame && one.error === other.error;
}

function fail(seed: number, { bytes, length }: Input, one: Outcome, other: Outcome): never {
  throw new Error(
    `seed ${seed}: ${JSON.stringify(one)} and ${JSON.stringify(other)} of ${
      bytes.subarray(0, length).toHex()
    }`,
  );
}

/**
 * Reads the input in pieces of the lengths that `next` says. Lets nothing pass but a FrameError.
 */
function parse(bytes: Uint8Array, length: number, next: () => number): Outcome {
  const reader = new FrameReader();
  const summary = new Summary(bytes);
  try {
    for (let at = 0; at < length;) {
      const piece = Math.min(next(), length - at);
      summary.limit(at, at + piece);
      reader.read(bytes, at, piece, summary);
      at += piece;
    }
  } catch (error) {
    if (!(error instanceof FrameError)) throw error;
    return { ...summary.outcome(), midFrame: false, error: error.message };
  }
  return { ...summary.outcome(), midFrame: reader.midFrame, error: "" };
}

/** Mixes all that a reader says into one number. */
class Summary implements FrameHandler {
  #digest = 0x811c9dc5;
  #events = 0;
  #start = 0;
  #end = 0;

  constructor(readonly bytes: Uint8Array) {}

  /** What is being read. */
  limit(start: number, end: number): void {
    this.#start = start;
    this.#end = end;
  }

  outcome(): Pick<Outcome, "events" | "digest"> {
    return { events: this.#events, digest: this.#digest };
  }

  data(start: number, length: number): void {
    if (length <= 0 || start < this.#start || start + length > this.#end) {
      throw new RangeError(`DATA at ${start} of ${length} bytes is not what was read`);
    }
    for (let at = start; at < start + length; at++) this.#mix(this.bytes[at] ?? 0);
  }

  open({ port, client, dialled }: Open): void {
    this.#frame(FRAME.OPEN);
    for (const { address, port } of [client, dialled]) {
      for (const byte of address) this.#mix(byte);
      this.#mix(port);
    }
    this.#mix(port);
  }

  accept(): void {
    this.#frame(FRAME.ACCEPT);
  }

  refuse(errno: number): void {
    this.#frame(FRAME.REFUSE);
    this.#mix(errno);
  }

  end(): void {
    this.#frame(FRAME.END);
  }

  reset(): void {
    this.#frame(FRAME.RESET);
  }

  #frame(type: number): void {
    this.#events++;
    this.#mix(0x10000 + type);
  }

  /** FNV-1a, by 32 bits. */
  #mix(value: number): void {
    this.#digest = Math.imul(this.#digest ^ value, 0x01000193);
  }
}

/** An input of either sort, made in a buffer that is used again. */
class Input {
  readonly bytes = new Uint8Array(5 * (HEADER_SIZE + MAX_DATA));
  length = 0;

  fill(random: Random): void {
    this.length = 0;
    if (random(4) === 0) return this.#noise(random);
    this.#frames(random);
    if (random(3) > 0) this.length = mutate(this.bytes, this.length, random);
  }

  /** Random bytes, mostly small ones, so that some of them begin as frames do. */
  #noise(random: Random): void {
    for (let count = random(60); count > 0; count--) {
      this.bytes[this.length++] = random(3) === 0 ? random(256) : random(7);
    }
  }

  /** A few frames in any order; now and then one of the largest. */
  #frames(random: Random): void {
    for (let count = random(4); count >= 0; count--) {
      const type = 1 + random(6);
      const isLarge = random(5_000) === 0;
      const data = isLarge ? MAX_DATA - random(3) : 1 + random(24);
      const length = type === FRAME.DATA ? data : PAYLOADS[type] ?? 0;
      writeHeader(this.bytes, this.length, type, length);
      this.length += HEADER_SIZE;
      if (isLarge) this.bytes.fill(type, this.length, this.length + length);
      else for (let at = 0; at < length; at++) this.bytes[this.length + at] = random(256);
      this.length += length;
    }
  }
}

const PAYLOADS: Record<number, number> = { [FRAME.OPEN]: 38, [FRAME.REFUSE]: 2 };
