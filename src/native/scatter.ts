import { errno } from "./errno.ts";
import { libc } from "./libc.ts";

/** Pointers into a {@link ScatterBuffer} exist at every multiple of this many bytes. */
export const GRAIN = 64;

const MAX_RANGES = 1024; // UIO_MAXIOV, linux/uio.h

/**
 * A buffer that one system call fills or empties in several ranges (struct iovec, struct msghdr). A
 * worker has a few and shares them among all its connections: nothing here may be kept from one
 * event to the next.
 */
export class ScatterBuffer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Bytes in all ranges. */
  length = 0;

  readonly #pointers: Deno.PointerObject[] = [];
  readonly #base: number;
  readonly #starts: number[] = [];
  readonly #lengths: number[] = [];
  #count = 0;
  /**
   * struct iovec { void *iov_base; size_t iov_len; }: 16 bytes each (bits/types/struct_iovec.h).
   */
  readonly #pinnedRanges = new Uint32Array(4 * MAX_RANGES);
  /** struct msghdr: msg_iov at 16, msg_iovlen at 24, 56 bytes in all (bits/socket.h). */
  readonly #message = new Uint8Array(56);
  readonly #messageView = new DataView(this.#message.buffer);

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    const base = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(this.bytes)));
    this.#base = Number(base); // user-space addresses have 47 or 48 bits
    for (let offset = 0; offset < size; offset += GRAIN) {
      // SAFETY: points into `bytes`, which this object owns and never resizes.
      const pointer = Deno.UnsafePointer.create(base + BigInt(offset));
      if (pointer !== null) this.#pointers.push(pointer);
    }
    const ranges = Deno.UnsafePointer.value(Deno.UnsafePointer.of(this.#pinnedRanges));
    this.#messageView.setBigUint64(16, BigInt(ranges), true);
  }

  /** The address of the byte at `offset`, a multiple of {@link GRAIN}. */
  pointer(offset: number): Deno.PointerObject {
    const pointer = this.#pointers[offset / GRAIN];
    if (pointer === undefined) throw new RangeError(`no pointer at offset ${offset} of the buffer`);
    return pointer;
  }

  get full(): boolean {
    return this.#count === MAX_RANGES;
  }

  clear(): void {
    this.#count = 0;
    this.length = 0;
  }

  /** Adds a range; the caller asks {@link full} first. */
  add(start: number, length: number): void {
    const index = this.#count++;
    const address = this.#base + start;
    this.#pinnedRanges[4 * index] = address % 0x1_0000_0000;
    this.#pinnedRanges[4 * index + 1] = address / 0x1_0000_0000;
    this.#pinnedRanges[4 * index + 2] = length;
    this.#starts[index] = start;
    this.#lengths[index] = length;
    this.length += length;
  }

  /**
   * Fills the first `ranges` from a socket: bytes read, 0 at the end of the stream, or minus the
   * errno.
   */
  receive(descriptor: number, ranges = this.#count): number {
    this.#messageView.setUint32(24, ranges, true);
    const count = libc.recvmsg(descriptor, this.#message, 0);
    return count === -1 ? -errno() : count;
  }

  /** Writes the ranges to a socket: bytes taken, or minus the errno. Never raises SIGPIPE. */
  send(descriptor: number): number {
    this.#messageView.setUint32(24, this.#count, true);
    const count = libc.sendmsg(descriptor, this.#message, MSG_NOSIGNAL);
    return count === -1 ? -errno() : count;
  }

  /**
   * Copies all ranges but their first `skip` bytes to the end of `target`, at `offset`; says how
   * many.
   */
  copyRest(skip: number, target: Uint8Array, offset: number): number {
    let copied = 0;
    for (let index = 0; index < this.#count; index++) {
      const start = this.#starts[index] ?? 0;
      const length = this.#lengths[index] ?? 0;
      const from = Math.min(skip, length);
      skip -= from;
      target.set(this.bytes.subarray(start + from, start + length), offset + copied);
      copied += length - from;
    }
    return copied;
  }
}

const MSG_NOSIGNAL = 0x4000;
