import { EPOLL_EVENT } from "./architecture.ts";
import { checked, EINTR, errno, SystemError } from "./errno.ts";
import { libc } from "./libc.ts";

/** Event bits (sys/epoll.h). */
export const EPOLLIN = 0x001;
export const EPOLLPRI = 0x002;
export const EPOLLOUT = 0x004;
export const EPOLLERR = 0x008;
export const EPOLLHUP = 0x010;
export const EPOLLRDHUP = 0x2000;
export const EPOLLET = 0x8000_0000 | 0;

/** How many events one `wait` brings at most. */
export const BATCH = 512;

/**
 * An epoll instance whose events carry two 32-bit numbers of the caller's. Blocks its thread in
 * `wait`.
 */
export class Epoll implements Disposable {
  readonly #descriptor = checked(libc.epoll_create1(EPOLL_CLOEXEC), "epoll_create1", "event loop");
  readonly #change = new Uint8Array(EPOLL_EVENT.size);
  readonly #changeView = new DataView(this.#change.buffer);
  readonly #batch = new Uint8Array(EPOLL_EVENT.size * BATCH);
  readonly #batchView = new DataView(this.#batch.buffer);

  add(descriptor: number, events: number, key: number, tag: number): void {
    this.#control(EPOLL_CTL_ADD, descriptor, events, key, tag);
  }

  modify(descriptor: number, events: number, key: number, tag: number): void {
    this.#control(EPOLL_CTL_MOD, descriptor, events, key, tag);
  }

  /**
   * Waits for at most `milliseconds` (-1: for ever) and says how many events came; a signal means
   * 0.
   */
  wait(milliseconds: number): number {
    const count = libc.epoll_wait(this.#descriptor, this.#batch, BATCH, milliseconds);
    if (count >= 0) return count;
    const code = errno();
    if (code === EINTR) return 0;
    throw new SystemError("epoll_wait", code, "event loop");
  }

  /** The bits of event `index` of the last `wait`. */
  events(index: number): number {
    return this.#batchView.getUint32(index * EPOLL_EVENT.size, true);
  }

  key(index: number): number {
    return this.#batchView.getUint32(index * EPOLL_EVENT.size + EPOLL_EVENT.data, true);
  }

  tag(index: number): number {
    return this.#batchView.getUint32(index * EPOLL_EVENT.size + EPOLL_EVENT.data + 4, true);
  }

  [Symbol.dispose](): void {
    libc.close(this.#descriptor);
  }

  #control(operation: number, descriptor: number, events: number, key: number, tag: number): void {
    this.#changeView.setUint32(0, events, true);
    this.#changeView.setUint32(EPOLL_EVENT.data, key, true);
    this.#changeView.setUint32(EPOLL_EVENT.data + 4, tag, true);
    checked(
      libc.epoll_ctl(this.#descriptor, operation, descriptor, this.#change),
      "epoll_ctl",
      `descriptor ${descriptor}`,
    );
  }
}

/**
 * Wakes a thread that waits in {@link Epoll.wait}: any thread rings, the owner quiets (eventfd(2)).
 */
export class Bell implements Disposable {
  /** Takes over `descriptor`, or makes a new one. */
  constructor(
    readonly descriptor = checked(libc.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd", "bell"),
  ) {}

  ring(): void {
    libc.write(this.descriptor, ONE, 8n);
  }

  /** Stops the ringing; says how many rings there were. */
  quiet(): number {
    this.#count[0] = 0n; // for a bell that was silent: read() then leaves the bytes alone
    libc.read(this.descriptor, this.#countBytes, 8n);
    return Number(this.#count[0]);
  }

  [Symbol.dispose](): void {
    libc.close(this.descriptor);
  }

  readonly #count = new BigUint64Array(1);
  readonly #countBytes = new Uint8Array(this.#count.buffer);
}

const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);

const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_MOD = 3;
const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;
