import { EAGAIN } from "../native/errno.ts";
import type { ScatterBuffer } from "../native/scatter.ts";
import { sendBytes } from "../native/socket.ts";

/** Large enough for everything that one read can turn into. */
const SIZE = 131072;

/** Buffers that were used and wait for the next short write; more than these are left to the collector. */
const spare: Uint8Array<ArrayBuffer>[] = [];
const MAX_SPARE = 16;

/**
 * What a socket would not take yet: one buffer per direction. Whoever fills it reads nothing more from the
 * other side until it is empty, which bounds what a slow reader costs.
 */
export class Pending {
  #buffer: Uint8Array<ArrayBuffer> | undefined;
  #start = 0;
  #end = 0;

  get empty(): boolean {
    return this.#buffer === undefined;
  }

  /** Keeps all ranges of `scatter` but their first `skip` bytes. Throws a RangeError when it would overflow. */
  keep(scatter: ScatterBuffer, skip: number): void {
    const buffer = this.#buffer ??= spare.pop() ?? new Uint8Array(SIZE);
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
    if (this.#buffer !== undefined && spare.length < MAX_SPARE) spare.push(this.#buffer);
    this.#buffer = undefined;
    this.#start = this.#end = 0;
  }
}
