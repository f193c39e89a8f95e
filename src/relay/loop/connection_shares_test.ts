import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { ConnectionShares, type Direction, type PodShare } from "./connection_shares.ts";
import { generator } from "../../random_for_tests.ts";

/** Opens as many as it may. */
function fill(share: PodShare, ...directions: Direction[]): number {
  const before = share.open;
  for (const direction of directions) {
    while (share.makeRoom(direction)) share.opened(direction);
  }
  return share.open - before;
}

const both = ["outbound", "inbound"] as const;

Deno.test("a pod that is alone has half of all, three quarters of that in one direction", () => {
  const share = new ConnectionShares(800).enter("shop");
  strictEqual(fill(share, "inbound"), 300);
  strictEqual(fill(share, "outbound"), 100);
});

Deno.test("two pods of a namespace leave a share to the next namespace that comes", () => {
  const shares = new ConnectionShares(800);
  const [first, second] = [shares.enter("shop"), shares.enter("shop")];
  deepStrictEqual([fill(first, ...both), fill(second, ...both)], [400, 200]);
  const other = shares.enter("bank");
  strictEqual(fill(other, ...both), Math.floor(800 / 2 / 3));
  ok(shares.open <= 800);
});

Deno.test("beside others a namespace has half of all, however many pods it has", () => {
  const shares = new ConnectionShares(1_200);
  const bank = shares.enter("bank");
  const shop = Array.from({ length: 10 }, () => shares.enter("shop"));
  const taken = shop.reduce((sum, each) => sum + fill(each, ...both), 0);
  strictEqual(taken, 600);
  ok(fill(bank, ...both) >= 200, "its own share, and what is left of the other half");
});

Deno.test("a pod that has its share or less is taken, whatever the others have", () => {
  const shares = new ConnectionShares(1_000);
  const pods = ["a", "b", "c", "d"].map((namespace) => shares.enter(namespace));
  const [last, ...greedy] = pods.reverse();
  for (const pod of greedy) fill(pod, ...both);
  strictEqual(shares.beyond, 500);
  strictEqual(last?.makeRoom("inbound"), true);
  strictEqual(last === undefined ? 0 : fill(last, "inbound"), 100);
});

Deno.test("what a pod gives back is there for others, also when it goes", () => {
  const shares = new ConnectionShares(400);
  const pod = shares.enter("shop");
  fill(pod, "outbound");
  while (pod.open > 0) pod.closed("outbound");
  pod.leave();
  deepStrictEqual([shares.open, shares.beyond, shares.isDivided], [0, 0, false]);
  strictEqual(fill(shares.enter("bank"), ...both), 200);
});

Deno.test("what nobody uses gives way, but only where that makes room", () => {
  const shares = new ConnectionShares(800);
  const [web, other, bank] = [shares.enter("shop"), shares.enter("shop"), shares.enter("bank")];
  const pause = (share: PodShare) => {
    const unused = {
      giveUp() {
        share.unused.delete(unused);
        share.closed("inbound");
      },
    };
    share.unused.add(unused);
  };
  deepStrictEqual([fill(web, "inbound"), fill(other, "inbound")], [300, 100]);
  fill(bank, "inbound");
  pause(bank);
  deepStrictEqual([web.makeRoom("inbound"), other.makeRoom("inbound")], [false, false]);
  strictEqual(bank.unused.size, 1, "another namespace's would not help");
  pause(web);
  strictEqual(other.makeRoom("inbound"), true, "the namespace has too many");
  other.opened("inbound");
  deepStrictEqual([web.open, other.open, web.unused.size], [299, 101, 0]);
  pause(other);
  strictEqual(web.makeRoom("outbound"), true);
  web.opened("outbound");
  strictEqual(other.unused.size, 0);
});

Deno.test("there are never more than all, and the sums agree, whoever comes and goes", () => {
  const random = generator(7);
  const shares = new ConnectionShares(97);
  const pods: { share: PodShare; open: Direction[] }[] = [];
  for (let step = 0; step < 20_000; step++) {
    const pod = pods[random(Math.max(1, pods.length))];
    const what = random(20);
    if (what === 0 && pods.length < 12) {
      pods.push({ share: shares.enter(`ns-${random(4)}`), open: [] });
    } else if (what === 1 && pod !== undefined) {
      for (const direction of pod.open) pod.share.closed(direction);
      pod.share.leave();
      pods.splice(pods.indexOf(pod), 1);
    } else if (what < 8 && pod !== undefined) {
      const direction = pod.open.pop();
      if (direction !== undefined) pod.share.closed(direction);
    } else if (pod !== undefined) {
      const direction = both[random(2)] ?? "inbound";
      if (!pod.share.makeRoom(direction)) continue;
      pod.share.opened(direction);
      pod.open.push(direction);
    }
    const open = pods.reduce((sum, { share }) => sum + share.open, 0);
    const beyond = pods.reduce((sum, { share }) => sum + Math.max(0, share.open - share.kept), 0);
    ok(open <= 97 && open === shares.open && beyond === shares.beyond, `step ${step}`);
  }
});
