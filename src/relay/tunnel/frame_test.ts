import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { parseAddress } from "../../addresses.ts";
import { MAX_RECORD } from "../../native/tls_session.ts";
import {
  FRAME,
  FrameError,
  type FrameHandler,
  FrameReader,
  HEADER_SIZE,
  MAX_DATA,
  type Open,
  writeHeader,
  writeOpen,
  writeRefuse,
} from "./frame.ts";

/**
 * What a handler was told. Data by its bytes, neighbours joined: where a read was cut says nothing.
 */
type Event =
  | { type: "open"; open: Open }
  | { type: "refuse"; errno: number }
  | { type: "data"; bytes: number[] }
  | { type: "accept" | "end" | "reset" };

const OPEN: Open = {
  port: 0x1f90,
  client: { address: parseAddress("10.1.2.3"), port: 0xc001 },
  dialled: { address: parseAddress("fd00::1:2"), port: 0x01bb },
};
const OPEN_BYTES = [
  ...[1, 0, 0, 38],
  ...[0x1f, 0x90],
  ...[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3, 0xc0, 0x01],
  ...[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0x01, 0xbb],
];

/** One of each frame: its bytes on the wire, and what they say. */
const FRAMES: Record<keyof typeof FRAME, { bytes: number[]; event: Event }> = {
  OPEN: { bytes: OPEN_BYTES, event: { type: "open", open: OPEN } },
  ACCEPT: { bytes: [2, 0, 0, 0], event: { type: "accept" } },
  REFUSE: { bytes: [3, 0, 0, 2, 0x01, 0x6f], event: { type: "refuse", errno: 0x16f } },
  DATA: { bytes: [4, 0, 0, 3, 7, 8, 9], event: { type: "data", bytes: [7, 8, 9] } },
  END: { bytes: [5, 0, 0, 0], event: { type: "end" } },
  RESET: { bytes: [6, 0, 0, 0], event: { type: "reset" } },
};
const ALL_BYTES = Object.values(FRAMES).flatMap(({ bytes }) => bytes);
const ALL_EVENTS = Object.values(FRAMES).map(({ event }) => event);

Deno.test("each frame is written as the table of the wire format says", () => {
  const bytes = new Uint8Array(64).fill(0xee);
  strictEqual(writeOpen(bytes, OPEN), 42);
  deepStrictEqual([...bytes.subarray(0, 43)], [...FRAMES.OPEN.bytes, 0xee]);

  bytes.fill(0xee);
  strictEqual(writeRefuse(bytes, 0x16f), 6);
  deepStrictEqual([...bytes.subarray(0, 7)], [...FRAMES.REFUSE.bytes, 0xee]);

  for (
    const [type, length, header] of [
      [FRAME.ACCEPT, 0, [2, 0, 0, 0]],
      [FRAME.DATA, 1, [4, 0, 0, 1]],
      [FRAME.DATA, 0x1234, [4, 0, 0x12, 0x34]],
      [FRAME.DATA, MAX_DATA, [4, 0, 0x3f, 0xfc]],
      [FRAME.END, 0, [5, 0, 0, 0]],
      [FRAME.RESET, 0, [6, 0, 0, 0]],
    ] as const
  ) {
    bytes.fill(0xee);
    writeHeader(bytes, 5, type, length);
    deepStrictEqual([...bytes.subarray(4, 10)], [0xee, ...header, 0xee]);
  }
});

Deno.test("a frame of the largest size fills one TLS record, and no larger one can be written", () => {
  strictEqual(HEADER_SIZE + MAX_DATA, MAX_RECORD);
  throws(() => writeHeader(new Uint8Array(8), 0, FRAME.DATA, MAX_DATA + 1), RangeError);
});

Deno.test("a frame can be written into the middle of a larger buffer", () => {
  const memory = new Uint8Array(128);
  writeOpen(memory.subarray(32), OPEN);
  deepStrictEqual([...memory.subarray(32, 74)], FRAMES.OPEN.bytes);
});

for (const [name, { bytes, event }] of Object.entries(FRAMES)) {
  Deno.test(`${name} is read in one piece, byte by byte, and cut in two at every place`, () => {
    deepStrictEqual(readPieces([bytes]), [event]);
    deepStrictEqual(readPieces(bytes.map((byte) => [byte])), [event]);
    for (let cut = 0; cut <= bytes.length; cut++) {
      deepStrictEqual(readPieces([bytes.slice(0, cut), bytes.slice(cut)]), [event], `at ${cut}`);
    }
  });

  Deno.test(`${name} is complete with its last byte and not before`, () => {
    const reader = new FrameReader();
    const recorder = new Recorder();
    for (const [index, byte] of bytes.entries()) {
      strictEqual(reader.midFrame, index > 0);
      recorder.read(reader, [byte]);
    }
    strictEqual(reader.midFrame, false);
  });
}

Deno.test("frames that are glued together are read in order, wherever they are cut", () => {
  deepStrictEqual(readPieces([ALL_BYTES]), ALL_EVENTS);
  for (let first = 0; first <= ALL_BYTES.length; first++) {
    for (const second of [first, first + 1, first + 5, first + 40]) {
      const pieces = [
        ALL_BYTES.slice(0, first),
        ALL_BYTES.slice(first, second),
        ALL_BYTES.slice(second),
      ];
      deepStrictEqual(readPieces(pieces), ALL_EVENTS, `cut at ${first} and ${second}`);
    }
  }
});

Deno.test("a stream's data is handed over where it lies, never copied, and never past its frame", () => {
  const reader = new FrameReader();
  const parts: [number, number][] = [];
  const recorder = new Recorder((start, length) => parts.push([start, length]));
  const bytes = Uint8Array.from([0xff, 0xff, 4, 0, 0, 9, 1, 2, 3, 0xff, 0xff]);
  reader.read(bytes, 2, 7, recorder);
  deepStrictEqual(parts, [[6, 3]]);
  strictEqual(reader.midFrame, true);
  reader.read(Uint8Array.from([0xff, 4, 5, 6, 7]), 1, 4, recorder);
  deepStrictEqual(parts, [[6, 3], [1, 4]]);
  // The frame's last two bytes, and END right behind them.
  reader.read(Uint8Array.from([8, 9, 5, 0, 0, 0]), 0, 6, recorder);
  deepStrictEqual(parts, [[6, 3], [1, 4], [0, 2]]);
  deepStrictEqual(recorder.events.at(-1), { type: "end" });
  strictEqual(reader.midFrame, false);
});

Deno.test("addresses that were read do not change with the next frame", () => {
  const reader = new FrameReader();
  const recorder = new Recorder();
  recorder.read(reader, FRAMES.OPEN.bytes);
  recorder.read(reader, [1, 0, 0, 38, ...new Array<number>(38).fill(0xee)]);
  deepStrictEqual(recorder.events[0], FRAMES.OPEN.event);
});

Deno.test("every header that is not exactly a frame's is refused", () => {
  const allowed: Record<number, (length: number) => boolean> = {
    [FRAME.OPEN]: (length) => length === 38,
    [FRAME.ACCEPT]: (length) => length === 0,
    [FRAME.REFUSE]: (length) => length === 2,
    [FRAME.DATA]: (length) => length >= 1 && length <= MAX_DATA,
    [FRAME.END]: (length) => length === 0,
    [FRAME.RESET]: (length) => length === 0,
  };
  const lengths = [
    ...Array.from({ length: 300 }, (_, length) => length),
    ...[MAX_DATA - 1, MAX_DATA, MAX_DATA + 1, MAX_RECORD, 0x8000, 0xff00, 0xffff],
  ];
  for (let type = 0; type < 256; type++) {
    for (const length of lengths) {
      const header = [type, 0, length >> 8, length & 0xff];
      if (allowed[type]?.(length)) readPieces([header]);
      else throws(() => readPieces([header]), FrameError, header.join(" "));
    }
  }
  for (let flags = 1; flags < 256; flags++) {
    for (const [type, , high = 0, low = 0] of Object.values(FRAMES).map(({ bytes }) => bytes)) {
      throws(() => readPieces([[type ?? 0, flags, high, low]]), FrameError, `flags ${flags}`);
    }
  }
});

Deno.test("an error says what was read instead of a frame", () => {
  throws(() => readPieces([[22, 3, 1, 2]]), {
    name: "FrameError",
    message: "not a frame: type 22, flags 3, payload of 258 bytes",
  });
});

Deno.test("whatever bytes come, in whatever pieces: the frames of a plain parser, or FrameError", () => {
  const random = generator(0x6b67_0001);
  const started = performance.now();
  let cases = 0;
  let refused = 0;
  // Half a minute's worth only on a very slow machine.
  for (; cases < 200_000 && performance.now() - started < 30_000; cases++) {
    const bytes = cases % 4 === 0 ? noise(random) : frames(random);
    // Most cases that are made of frames get a byte changed, dropped or doubled.
    if (cases % 4 > 1 && bytes.length > 0) {
      const at = random(bytes.length);
      if (cases % 3 === 0) bytes.splice(at, 1);
      else if (cases % 3 === 1) bytes[at] = random(256);
      else bytes.splice(at, 0, bytes[at] ?? 0);
    }
    const expected = plainParse(bytes);
    const reader = new FrameReader();
    const recorder = new Recorder();
    let error: unknown;
    try {
      for (let at = 0; at < bytes.length;) {
        const length = random(8) === 0
          ? random(1 + bytes.length - at)
          : Math.min(random(12), bytes.length - at);
        recorder.read(reader, bytes.slice(at, at + length));
        at += length;
      }
    } catch (thrown) {
      error = thrown;
    }
    const about = `case ${cases}: ${bytes.join(" ")}`;
    strictEqual(error === undefined || error instanceof FrameError, true, `${error} in ${about}`);
    strictEqual(error !== undefined, expected.refused, about);
    if (JSON.stringify(recorder.events) !== JSON.stringify(expected.events)) {
      deepStrictEqual(recorder.events, expected.events, about);
    }
    if (error === undefined) strictEqual(reader.midFrame, expected.midFrame, about);
    else refused++;
  }
  // Both sorts of cases have to be there for this to mean anything.
  strictEqual(
    refused > cases / 10 && refused < cases * 0.9,
    true,
    `${refused} of ${cases} refused`,
  );
});

Deno.test("a reader keeps nothing of what it has read", () => {
  const reader = new FrameReader();
  const handler = new Recorder(() => {});
  const bytes = new Uint8Array(HEADER_SIZE + MAX_DATA);
  writeHeader(bytes, 0, FRAME.DATA, MAX_DATA);
  const before = Deno.memoryUsage().rss;
  for (let count = 0; count < 16_384; count++) reader.read(bytes, 0, bytes.length, handler); // 256 MiB
  strictEqual(Deno.memoryUsage().rss - before < 64 * 2 ** 20, true);
});

class Recorder implements FrameHandler {
  readonly events: Event[] = [];
  #bytes = new Uint8Array();
  #range = { start: 0, end: 0 };

  /** Records the bytes of the data, or only tells `onData` where they are. */
  constructor(readonly onData?: (start: number, length: number) => void) {}

  /**
   * Reads `piece` out of the middle of a buffer, and throws when the reader looks at anything
   * around it.
   */
  read(reader: FrameReader, piece: readonly number[]): void {
    const margin = 3;
    this.#bytes = Uint8Array.from([1, 2, 3, ...piece, 4, 5, 6]);
    this.#range = { start: margin, end: margin + piece.length };
    const guarded = new Proxy(this.#bytes, {
      get: (bytes, key) => {
        const index = typeof key === "string" ? Number(key) : NaN;
        this.#require(index, index + 1);
        return bytes[index];
      },
    });
    reader.read(guarded, margin, piece.length, this);
  }

  data(start: number, length: number): void {
    if (this.onData !== undefined) return this.onData(start, length);
    strictEqual(length > 0, true);
    this.#require(start, start + length);
    const bytes = [...this.#bytes.subarray(start, start + length)];
    const last = this.events.at(-1);
    if (last?.type === "data") last.bytes.push(...bytes);
    else this.events.push({ type: "data", bytes });
  }

  open(open: Open): void {
    this.events.push({ type: "open", open });
  }

  accept(): void {
    this.events.push({ type: "accept" });
  }

  refuse(errno: number): void {
    this.events.push({ type: "refuse", errno });
  }

  end(): void {
    this.events.push({ type: "end" });
  }

  reset(): void {
    this.events.push({ type: "reset" });
  }

  #require(start: number, end: number): void {
    if (start >= this.#range.start && end <= this.#range.end) return;
    throw new Error(`looked at ${start} to ${end}, outside its range`);
  }
}

function readPieces(pieces: readonly (readonly number[])[]): Event[] {
  const reader = new FrameReader();
  const recorder = new Recorder();
  for (const piece of pieces) recorder.read(reader, piece);
  return recorder.events;
}

/** The format once more, for a whole stream at once: shares no code with the reader. */
function plainParse(
  bytes: readonly number[],
): { events: Event[]; refused: boolean; midFrame: boolean } {
  const events: Event[] = [];
  const add = (data: readonly number[]) => {
    const last = events.at(-1);
    if (last?.type === "data") last.bytes.push(...data);
    else if (data.length > 0) events.push({ type: "data", bytes: [...data] });
  };
  const sizes: Record<number, number> = { 1: 38, 2: 0, 3: 2, 5: 0, 6: 0 };
  for (let at = 0; at < bytes.length;) {
    const [type = 0, flags, high = 0, low = 0] = bytes.slice(at, at + 4);
    if (bytes.length - at < 4) return { events, refused: false, midFrame: true };
    const length = 256 * high + low;
    const legal = type === 4 ? length > 0 && length <= 16380 : sizes[type] === length;
    if (flags !== 0 || !legal) return { events, refused: true, midFrame: false };
    const payload = bytes.slice(at + 4, at + 4 + length);
    at += 4 + length;
    if (type === 4) add(payload);
    if (payload.length < length) return { events, refused: false, midFrame: true };
    const two = (index: number) => 256 * (payload[index] ?? 0) + (payload[index + 1] ?? 0);
    if (type === 1) {
      const address = (from: number) => Uint8Array.from(payload.slice(from, from + 16));
      const client = { address: address(2), port: two(18) };
      const dialled = { address: address(20), port: two(36) };
      events.push({ type: "open", open: { port: two(0), client, dialled } });
    }
    if (type === 2) events.push({ type: "accept" });
    if (type === 3) events.push({ type: "refuse", errno: two(0) });
    if (type === 5) events.push({ type: "end" });
    if (type === 6) events.push({ type: "reset" });
  }
  return { events, refused: false, midFrame: false };
}

/** Random bytes, mostly small ones, so that some of them begin as frames do. */
function noise(random: (below: number) => number): number[] {
  return Array.from({ length: random(80) }, () => random(3) === 0 ? random(256) : random(7));
}

/** A few frames with random contents, the last one often cut short. */
function frames(random: (below: number) => number): number[] {
  const bytes: number[] = [];
  for (let count = random(5); count >= 0; count--) {
    const type = 1 + random(6);
    const length = type === 4 ? 1 + random(40) : [0, 38, 0, 2, 0, 0, 0][type] ?? 0;
    bytes.push(type, 0, 0, length, ...Array.from({ length }, () => random(256)));
  }
  return random(2) === 0 ? bytes : bytes.slice(0, random(bytes.length + 1));
}

/** mulberry32: the same numbers in every run. */
function generator(seed: number): (below: number) => number {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor(((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32 * below);
  };
}
