import { EAGAIN } from "../../native/errno.ts";
import type { ScatterBuffer } from "../../native/scatter.ts";
import { sendBytes } from "../../native/socket.ts";

/** Large enough for everything that one read can turn into. */
const SIZE = 131_072;

/** The same for a read of one record, with some control frames behind it. */
const SMALL_SIZE = 20_480;

/** So many buffers of a worker, 16 to 32 MB, before reads become small. */
const CROWD = 256;

/**
 * Buffers that were used and wait for the next short write; more than these are left to the
 * collector.
 */
const spare = new Map<number, Uint8Array<ArrayBuffer>[]>([[SIZE, []], [SMALL_SIZE, []]]);
const MAX_SPARE = 16;

let inUse = 0;

/**
 * Whether so many slow receivers are waited for in this worker that no more than a record is to be
 * read at once.
 */
export function isCrowded(): boolean {
  return inUse >= CROWD;
}

/** So many buffers of a worker before the kernel, too, keeps little for whoever is not read. */
const MANY = 32;

/**
 * Whether so many slow receivers are waited for in this worker that what the kernel keeps of those
 * who send to them counts: a megabyte for each at most.
 */
export function areMany(): boolean {
  return inUse >= MANY;
}

/**
 * What a socket would not take yet: one buffer per direction. Whoever fills it reads nothing more
 * from the other side until it is empty, which bounds what a slow reader costs.
 */
export class Pending {
  #buffer: Uint8Array<ArrayBuffer> | undefined;
  #start = 0;
  #end = 0;

  get empty(): boolean {
    return this.#buffer === undefined;
  }

  /**
   * Keeps all ranges of `scatter` but their first `skip` bytes. Throws a RangeError when it would
   * overflow.
   */
  keep(scatter: ScatterBuffer, skip: number): void {
    const buffer = this.#roomFor(this.#end + scatter.length - skip);
    this.#end += scatter.copyRest(skip, buffer, this.#end);
  }

  /** Sends as much as the socket takes: 0, or minus the errno that broke the connection. */
  flush(descriptor: number): number {
    while (this.#buffer !== undefined) {
      const count = sendBytes(descriptor, this.#buffer.subarray(this.#start, this.#end));
      if (count < 0) return count === -EAGAIN ? 0 : count;
      this.#start += count;
      if (this.#start === this.#end) this.drop();
    }
    return 0;
  }

  drop(): void {
    if (this.#buffer === undefined) return;
    inUse--;
    release(this.#buffer);
    this.#buffer = undefined;
    this.#start = this.#end = 0;
  }

  #roomFor(length: number): Uint8Array<ArrayBuffer> {
    const small = this.#buffer;
    if (small !== undefined && length <= small.length) return small;
    const size = length <= SMALL_SIZE && isCrowded() ? SMALL_SIZE : SIZE;
    const buffer = this.#buffer = spare.get(size)?.pop() ?? new Uint8Array(size);
    if (small === undefined) inUse++;
    else {
      buffer.set(small.subarray(0, this.#end));
      release(small);
    }
    return buffer;
  }
}

function release(buffer: Uint8Array<ArrayBuffer>): void {
  const others = spare.get(buffer.length);
  if (others !== undefined && others.length < MAX_SPARE) others.push(buffer);
}
