/** How tunnels of one pod share its time, and pods a worker's. No root is needed. */
import { deepStrictEqual } from "node:assert/strict";
import { Bell } from "../../native/epoll.ts";
import { EventLoop, type Handler } from "./event_loop.ts";
import { SHARE_MILLISECONDS, TurnShare } from "./turn_share.ts";

interface Scene {
  readonly loop: EventLoop;
  readonly share: TurnShare;
  /** Who has worked, in order. */
  readonly worked: string[];
  /** One that has so many pieces of work, each of which takes so long. */
  handler(name: string, pieces: number, milliseconds: number, share?: TurnShare): Handler;
  /** The next turn; who has worked in it. */
  turn(): string[];
}

function scene(name: string, play: (scene: Scene) => void): void {
  Deno.test(name, () => {
    using bell = new Bell();
    using loop = new EventLoop(bell, () => Promise.resolve());
    const share = new TurnShare(loop);
    const worked: string[] = [];
    const handler = (name: string, pieces: number, milliseconds: number, of = share): Handler => {
      let left = pieces;
      const one: Handler = {
        ready: () => {
          if (left === 0 || !of.admits(one)) return;
          left--;
          worked.push(name);
          of.spend(milliseconds);
          if (left > 0) loop.again(one);
        },
        failed: (error) => worked.push(`${name}: ${error}`),
      };
      return one;
    };
    const turn = () => {
      worked.length = 0;
      loop.turn(0);
      return [...worked];
    };
    play({ loop, share, worked, handler, turn });
  });
}

scene("whose pod has had its share waits, in order; another pod's does not", (s) => {
  const other = new TurnShare(s.loop);
  const handlers = ["a", "b", "c"].map((name) => s.handler(name, 2, SHARE_MILLISECONDS));
  for (const one of [...handlers, s.handler("other", 3, 1, other)]) s.loop.again(one);
  deepStrictEqual(s.turn(), ["a", "other"]);
  deepStrictEqual(s.turn(), ["b", "other"], "who has worked is behind those who have waited");
  deepStrictEqual(s.turn(), ["c", "other"]);
  deepStrictEqual([s.turn(), s.turn(), s.turn()], [["a"], ["b"], ["c"]]);
  deepStrictEqual(s.turn(), []);
});

scene("who has an event does not overtake who waits", (s) => {
  const [first, second] = ["first", "second"].map((name) => s.handler(name, 1, SHARE_MILLISECONDS));
  s.share.spend(SHARE_MILLISECONDS);
  first?.ready(1);
  deepStrictEqual(s.worked, []);
  s.loop.turns++; // the next turn, whose events come first
  second?.ready(1);
  deepStrictEqual(s.worked, []);
  deepStrictEqual([s.turn(), s.turn()], [["first"], ["second"]]);
});

scene("short pieces of work share a turn", (s) => {
  for (let count = 0; count < 6; count++) s.loop.again(s.handler(`${count}`, 1, 1));
  deepStrictEqual(s.turn(), ["0", "1", "2", "3"]);
  deepStrictEqual(s.turn(), ["4", "5"]);
});

scene("one that fails while it is called from the queue fails alone", (s) => {
  const broken: Handler = {
    ready: () => {
      if (s.share.admits(broken)) throw new Error("a bug");
    },
    failed: (error) => s.worked.push(`${error}`),
  };
  s.share.spend(SHARE_MILLISECONDS);
  broken.ready(1);
  const next = s.handler("next", 1, 1);
  next.ready(1);
  deepStrictEqual(s.turn(), ["Error: a bug", "next"]);
});
