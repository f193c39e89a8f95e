/** Deadlines of a thread that has other work. No root is needed. */
import { deepStrictEqual } from "node:assert/strict";
import { BATCH, Bell, EPOLLET, EPOLLIN } from "../../native/epoll.ts";
import { EventLoop } from "./event_loop.ts";

/** A loop whose clock the test turns. `done` is what its handlers have seen. */
class Loop implements Disposable {
  time = 0;
  readonly done: string[] = [];
  readonly loop = new EventLoop(new Bell(), () => Promise.resolve(), () => this.time);
  readonly #bells: Bell[] = [this.loop.bell];

  /** A descriptor that is ready when its bell rings, and what is done then. */
  add(name: string, handle: () => void = () => {}): { bell: Bell; expired(): void } {
    const bell = new Bell();
    this.#bells.push(bell);
    const target = { bell, expired: () => void this.done.push(`${name} expired`) };
    this.loop.register(bell.descriptor, EPOLLIN | EPOLLET, {
      ready: () => {
        this.done.push(`${name} ready`);
        handle();
      },
      failed: (error) => this.done.push(`${name} failed: ${error}`),
    });
    return target;
  }

  [Symbol.dispose](): void {
    this.loop[Symbol.dispose]();
    for (const bell of this.#bells) bell[Symbol.dispose]();
  }
}

Deno.test("what came in time is not too late because the thread was busy", () => {
  using lab = new Loop();
  const { deadlines } = lab.loop;
  const slow = lab.add("answer", () => deadlines.disarm(slow));
  const busy = lab.add("work", () => {
    deadlines.arm(slow, 100);
    slow.bell.ring(); // at once, while there is other work for longer than that
    lab.time += 500;
  });
  busy.bell.ring();
  lab.loop.turn(0);
  lab.loop.turn(0);
  deepStrictEqual(lab.done, ["work ready", "answer ready"]);
});

Deno.test("what has not come in time is too late", () => {
  using lab = new Loop();
  lab.loop.deadlines.arm(lab.add("answer"), 100);
  lab.time = 99;
  lab.loop.turn(0);
  deepStrictEqual(lab.done, []);
  lab.time = 100;
  lab.loop.turn(0);
  deepStrictEqual(lab.done, ["answer expired"]);
});

Deno.test("more events than are handled at once keep a deadline waiting, but not for ever", () => {
  using lab = new Loop();
  const flood = Array.from({ length: BATCH + 10 }, () => lab.add("flood"));
  const ring = () => flood.forEach(({ bell }) => bell.ring());
  const { deadlines } = lab.loop;
  lab.loop.turn(0);
  deadlines.arm(lab.add("answer"), 100);
  ring();
  lab.time = 200;
  lab.loop.turn(0);
  deepStrictEqual(lab.done.includes("answer expired"), false, "its event may be among the others");
  ring();
  lab.time = 1_500;
  lab.loop.turn(0);
  deepStrictEqual(lab.done.includes("answer expired"), true);
});
