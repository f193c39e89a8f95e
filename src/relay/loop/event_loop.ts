import { BATCH, Bell, Epoll, EPOLLIN } from "../../native/epoll.ts";
import { Deadlines } from "./deadlines.ts";

/** What the loop calls when a descriptor has events. */
export interface Handler {
  ready(events: number): void;
  /** A `ready` that threw: a bug, which must cost this connection only. */
  failed(error: unknown): void;
}

/**
 * A worker's epoll loop. Connections register once, edge-triggered (EPOLLET): whoever handles an
 * event reads or writes until the kernel has no more, or asks to be called {@link again}.
 */
export class EventLoop implements Disposable {
  readonly deadlines: Deadlines;
  readonly #epoll = new Epoll();
  /**
   * By descriptor. The tag tells a descriptor's owner from an earlier one in the same batch of
   * events.
   */
  readonly #handlers: (Handler | undefined)[] = [];
  readonly #tags: number[] = [];
  #nextTag = 1;
  #again = new Set<Handler>();
  #stopped = false;
  /** How many turns there were. */
  turns = 0;
  /** Whatever had happened by then has been handled, by the deadlines' clock. */
  #handled = -Infinity;

  /**
   * @param bell rung by other threads when they have posted a message.
   * @param receive gives up the thread until the messages of one ring have been handled.
   * @param now the clock of the deadlines, in milliseconds; it never goes back.
   */
  constructor(
    readonly bell: Bell,
    readonly receive: (rings: number) => Promise<void>,
    now?: () => number,
  ) {
    this.deadlines = new Deadlines(now);
    this.#epoll.add(bell.descriptor, EPOLLIN, bell.descriptor, 0);
  }

  register(descriptor: number, events: number, handler: Handler): void {
    const tag = this.#nextTag;
    this.#nextTag = tag === 0xffff_ffff ? 1 : tag + 1;
    this.#handlers[descriptor] = handler;
    this.#tags[descriptor] = tag;
    this.#epoll.add(descriptor, events, descriptor, tag);
  }

  /** Hands a registered descriptor to another handler. */
  replace(descriptor: number, handler: Handler): void {
    this.#handlers[descriptor] = handler;
  }

  /** Changes which events are waited for. */
  interest(descriptor: number, events: number): void {
    this.#epoll.modify(descriptor, events, descriptor, this.#tags[descriptor] ?? 0);
  }

  /** Forgets a descriptor that is about to be closed, which takes it out of the epoll set. */
  forget(descriptor: number): void {
    this.#handlers[descriptor] = undefined;
    this.#tags[descriptor] = 0;
  }

  /**
   * Calls `handler` once more, without events, after everybody else had a turn. Once, however often
   * it asks: else one that has events while it waits would have more turns each time.
   */
  again(handler: Handler): void {
    this.#again.add(handler);
  }

  stop(): void {
    this.#stopped = true;
  }

  async run(): Promise<void> {
    while (!this.#stopped) {
      const rung = this.turn(this.deadlines.wait());
      if (rung) await this.receive(this.bell.quiet());
    }
    this[Symbol.dispose]();
  }

  /**
   * Waits for at most `milliseconds` (-1: for ever), handles what has happened, and says whether
   * the bell has rung. Nothing is waited for while a handler wants to be called again.
   */
  turn(milliseconds: number): boolean {
    const count = this.#epoll.wait(this.#again.size > 0 ? 0 : milliseconds);
    this.turns++;
    const began = this.deadlines.now();
    if (count < BATCH || began - this.#handled > MOST_LATE) this.#handled = began;
    let rung = false;
    for (let index = 0; index < count; index++) {
      const descriptor = this.#epoll.key(index);
      if (descriptor === this.bell.descriptor) {
        rung = true;
        continue;
      }
      const handler = this.#handlers[descriptor];
      if (handler === undefined || this.#tags[descriptor] !== this.#epoll.tag(index)) continue;
      this.call(handler, this.#epoll.events(index));
    }
    // A thread that was busy since, or had no processor, has not seen yet what came in time.
    this.deadlines.run(this.#handled);
    if (this.#again.size > 0) this.#takeTurns();
    return rung;
  }

  [Symbol.dispose](): void {
    this.#epoll[Symbol.dispose]();
  }

  #takeTurns(): void {
    const waiting = this.#again;
    this.#again = new Set();
    for (const handler of waiting) this.call(handler, 0);
  }

  /** A handler that throws fails alone. */
  call(handler: Handler, events: number): void {
    try {
      handler.ready(events);
    } catch (error) {
      try {
        handler.failed(error);
      } catch (again) {
        // What is left of this connection goes with the process; the others must not.
        console.error(`kube-gateway relay: ${error}, and then ${again}`);
      }
    }
  }
}

/** How many milliseconds too late a deadline may be where more happens than is handled. */
const MOST_LATE = 1_000;
