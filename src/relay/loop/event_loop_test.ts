/** Whose turn it is. No root is needed. */
import { deepStrictEqual } from "node:assert/strict";
import { Bell } from "../../native/epoll.ts";
import { EventLoop, type Handler } from "./event_loop.ts";

interface Scene {
  readonly loop: EventLoop;
  /** Who was called. */
  readonly called: string[];
  /** A handler that asks so often to be called again while it is. */
  handler(name: string, asks: number): Handler;
}

function scene(name: string, play: (scene: Scene) => void): void {
  Deno.test(name, () => {
    using bell = new Bell();
    using loop = new EventLoop(bell, () => Promise.resolve());
    const called: string[] = [];
    const handler = (name: string, asks: number): Handler => {
      const one: Handler = {
        ready: () => {
          called.push(name);
          for (let count = 0; count < asks; count++) loop.again(one);
        },
        failed: (error) => called.push(`${name}: ${error}`),
      };
      return one;
    };
    play({ loop, called, handler });
  });
}

scene("who asks to be called again is called once a turn, however often it asks", (s) => {
  const [greedy, modest] = [s.handler("greedy", 2), s.handler("modest", 0)];
  for (const one of [greedy, modest, greedy]) s.loop.again(one);
  s.loop.turn(0);
  deepStrictEqual(s.called, ["greedy", "modest"]);
  for (let turn = 0; turn < 3; turn++) {
    greedy.ready(1); // an event, while it waits for its turn
    s.loop.turn(0);
  }
  deepStrictEqual(s.called.slice(2), new Array(6).fill("greedy"));
});

scene("nothing is waited for while somebody wants to be called again", (s) => {
  s.loop.again(s.handler("one", 0));
  s.loop.turn(60_000);
  s.loop.turn(0);
  deepStrictEqual(s.called, ["one"]);
});

scene("who throws is told so, and the others have their turns", (s) => {
  const broken = s.handler("broken", 0);
  broken.ready = () => {
    throw new Error("a bug");
  };
  for (const one of [broken, s.handler("other", 0)]) s.loop.again(one);
  s.loop.turn(0);
  deepStrictEqual(s.called, ["broken: Error: a bug", "other"]);
});
