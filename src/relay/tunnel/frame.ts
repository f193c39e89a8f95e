/**
 * The wire format inside a tunnel; src/README.md has it as a table.
 *
 * Every frame is a header of 4 bytes (type, 0, payload length as 16 bits in network byte order) and
 * its payload. A frame fits one TLS record; where record and frame borders fall is not significant.
 */
import type { Endpoint } from "../../native/socket_address.ts";
import { MAX_RECORD } from "../../native/tls_session.ts";

/**
 * The application protocol that both sides negotiate (RFC 7301); its number is the format's
 * version.
 */
export const ALPN = "kube-gateway/1";

export const HEADER_SIZE = 4;
export const MAX_DATA = MAX_RECORD - HEADER_SIZE;

export const FRAME = { OPEN: 1, ACCEPT: 2, REFUSE: 3, DATA: 4, END: 5, RESET: 6 } as const;

/** A stream's request: what to dial, for whom. */
export interface Open {
  /** The port on the pod itself. */
  readonly port: number;
  /** The application's own address and port, as the server should see them. */
  readonly client: Endpoint;
  /** What the application had dialled. */
  readonly dialled: Endpoint;
}

/** What a {@link FrameReader} calls, in the order of the frames. */
export interface FrameHandler {
  open(open: Open): void;
  accept(): void;
  /** `errno` says why the server's side could not connect (asm-generic/errno.h). */
  refuse(errno: number): void;
  /** Part of a stream: `length` bytes at `start` of the buffer that is being read. */
  data(start: number, length: number): void;
  /** The other application will send no more. */
  end(): void;
  /** The other application is gone, or its connection broke. */
  reset(): void;
}

/** A peer that does not speak the protocol. */
export class FrameError extends Error {
  override readonly name = "FrameError";
}

/**
 * Writes a frame with a payload that already lies behind its header's place.
 * Throws a RangeError for a payload that does not fit.
 */
export function writeHeader(
  bytes: Uint8Array,
  offset: number,
  type: number,
  length: number,
): void {
  if (length > MAX_DATA) throw new RangeError(`a frame cannot hold ${length} bytes`);
  bytes[offset] = type;
  bytes[offset + 1] = 0;
  bytes[offset + 2] = length >> 8;
  bytes[offset + 3] = length & 0xff;
}

/** Writes an OPEN frame at the start of `bytes`: its whole size. */
export function writeOpen(bytes: Uint8Array, { port, client, dialled }: Open): number {
  writeHeader(bytes, 0, FRAME.OPEN, OPEN_SIZE);
  const view = new DataView(bytes.buffer, bytes.byteOffset + HEADER_SIZE, OPEN_SIZE);
  view.setUint16(0, port);
  bytes.set(client.address, HEADER_SIZE + 2);
  view.setUint16(18, client.port);
  bytes.set(dialled.address, HEADER_SIZE + 20);
  view.setUint16(36, dialled.port);
  return HEADER_SIZE + OPEN_SIZE;
}

/** Writes a REFUSE frame at the start of `bytes`: its whole size. */
export function writeRefuse(bytes: Uint8Array, errno: number): number {
  writeHeader(bytes, 0, FRAME.REFUSE, REFUSE_SIZE);
  bytes[HEADER_SIZE] = errno >> 8;
  bytes[HEADER_SIZE + 1] = errno & 0xff;
  return HEADER_SIZE + REFUSE_SIZE;
}

const OPEN_SIZE = 38;
const REFUSE_SIZE = 2;

/** Which payload lengths a type allows. */
function lengthAllowed(type: number, length: number): boolean {
  switch (type) {
    case FRAME.OPEN:
      return length === OPEN_SIZE;
    case FRAME.REFUSE:
      return length === REFUSE_SIZE;
    case FRAME.DATA:
      return length > 0 && length <= MAX_DATA;
    case FRAME.ACCEPT:
    case FRAME.END:
    case FRAME.RESET:
      return length === 0;
    default:
      return false;
  }
}

/**
 * Takes a tunnel's plaintext apart, in whatever pieces it comes. Holds at most 42 bytes between
 * them.
 */
export class FrameReader {
  /** Header and control payload as far as they have come. */
  readonly #control = new Uint8Array(HEADER_SIZE + OPEN_SIZE);
  #have = 0;
  /** Bytes of the current DATA frame that are still to come. */
  #dataLeft = 0;

  /** Whether a frame has begun that is not complete. */
  get midFrame(): boolean {
    return this.#have > 0 || this.#dataLeft > 0;
  }

  /**
   * Reads `length` bytes of `bytes` at `start`. Throws a FrameError for anything that is not a
   * frame.
   */
  read(bytes: Uint8Array, start: number, length: number, handler: FrameHandler): void {
    const end = start + length;
    let at = start;
    while (at < end) {
      if (this.#dataLeft > 0) {
        const part = Math.min(this.#dataLeft, end - at);
        this.#dataLeft -= part;
        handler.data(at, part);
        at += part;
        continue;
      }
      this.#control[this.#have++] = bytes[at++] ?? 0;
      if (this.#have >= HEADER_SIZE) this.#advance(handler);
    }
  }

  /** Called with a whole header, and again with each byte of a control payload. */
  #advance(handler: FrameHandler): void {
    const type = this.#control[0] ?? 0;
    const length = ((this.#control[2] ?? 0) << 8) | (this.#control[3] ?? 0);
    if (this.#have === HEADER_SIZE) {
      if (this.#control[1] !== 0 || !lengthAllowed(type, length)) {
        throw new FrameError(
          `not a frame: type ${type}, flags ${this.#control[1]}, payload of ${length} bytes`,
        );
      }
      if (type === FRAME.DATA) {
        this.#have = 0;
        this.#dataLeft = length;
        return;
      }
    }
    if (this.#have < HEADER_SIZE + length) return;
    this.#have = 0;
    if (type === FRAME.OPEN) handler.open(readOpen(this.#control));
    else if (type === FRAME.ACCEPT) handler.accept();
    else if (type === FRAME.REFUSE) {
      handler.refuse(((this.#control[4] ?? 0) << 8) | (this.#control[5] ?? 0));
    } else if (type === FRAME.END) handler.end();
    else handler.reset();
  }
}

function readOpen(frame: Uint8Array): Open {
  const view = new DataView(frame.buffer, frame.byteOffset + HEADER_SIZE, OPEN_SIZE);
  return {
    port: view.getUint16(0),
    client: { address: frame.slice(HEADER_SIZE + 2, HEADER_SIZE + 18), port: view.getUint16(18) },
    dialled: { address: frame.slice(HEADER_SIZE + 20, HEADER_SIZE + 36), port: view.getUint16(36) },
  };
}
