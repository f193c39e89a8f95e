/**
 * All enrolments of a node: cgroups are directories, and what holds pods is written down. No root
 * is needed.
 */
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { until } from "../../../tests/lab/delay.ts";
import type { Fault } from "../../kernel/fault.ts";
import type { WantedEnrolment } from "../rules/desired.ts";
import { Enrolments } from "./enrolments.ts";
import { Node, UID, WANTED } from "./node_for_tests.ts";
import { HeldTimers } from "../../timers_for_tests.ts";
import { NotThereYet } from "./pod_kernel.ts";

const OTHER = "0c5f3b1e-6d5e-4c64-9d3a-222222222222";
const BOTH = new Set([UID, OTHER]);

class Place implements Disposable {
  readonly #root = Deno.makeTempDirSync();
  readonly node = new Node();
  /** What was held and let go, in order. */
  readonly held: string[] = [];
  faults: Fault[] = [];
  readonly enrolments: Enrolments;

  constructor(...pods: readonly string[]) {
    Deno.mkdirSync(`${this.#root}/kubepods`);
    for (const uid of pods) this.make(uid);
    const hold = {
      below: (tops: readonly string[]) => void this.held.push(`hold ${this.#names(tops)}`),
      letGo: (cgroup: string) => void this.held.push(`let go ${this.#names([cgroup])}`),
      inspect: () => this.faults.splice(0),
      forgetAllBut: () => {},
    };
    const owner = Deno.uid() ?? 0;
    this.enrolments = new Enrolments(this.#root, hold, this.node.services, owner);
  }

  /** A pod's cgroup is made. */
  make(uid: string): void {
    Deno.mkdirSync(`${this.#root}/kubepods/pod${uid}`);
  }

  want(wanted: readonly WantedEnrolment[], { complete = true, known = BOTH } = {}): void {
    this.enrolments.want(new Map(wanted.map((each) => [each.uid, each])), known, complete);
  }

  get states(): string[] {
    return this.enrolments.list().map(({ state }) => state);
  }

  #names(cgroups: readonly string[]): string {
    return cgroups.map((cgroup) => cgroup.slice(this.#root.length + 1)).join();
  }

  [Symbol.dispose](): void {
    this.enrolments.pause();
    Deno.removeSync(this.#root, { recursive: true });
  }
}

/** Sooner than what the next look at all cgroups would find. */
async function holds(condition: () => boolean): Promise<void> {
  await until(condition, 3_000, () => `not in time: ${condition}`);
}

Deno.test("who is known and not wanted is let go before all are held; who is wanted is enrolled", async () => {
  using place = new Place(UID, OTHER);
  place.faults = [{ kind: "hold", what: "hold4 was detached" }];
  deepStrictEqual(place.enrolments.inspectHolds(), [], "nobody is to be held yet");
  place.want([WANTED]);
  deepStrictEqual(place.held, [`let go kubepods/pod${OTHER}`, "hold kubepods"]);
  await place.enrolments.reconcile();
  deepStrictEqual(place.states, ["active"]);
  deepStrictEqual(place.node.take(), ["open", "attach", "certificate", "serve"]);
  deepStrictEqual(place.enrolments.inspectHolds().map(({ kind }) => kind), ["hold"]);
  strictEqual(place.held.at(-1), "hold kubepods", "and is put right");
});

Deno.test("who is not among those that are known is held until it is", async () => {
  using place = new Place(UID, OTHER);
  place.want([WANTED], { known: new Set([UID]) });
  deepStrictEqual(place.held, ["hold kubepods"]);
  place.want([WANTED]);
  deepStrictEqual(place.held.slice(1), [`let go kubepods/pod${OTHER}`]);
  place.want([WANTED]);
  strictEqual(place.held.length, 2, "once");
  await Promise.resolve();
});

Deno.test("while not everything has been read no pod leaves", async () => {
  using place = new Place(UID);
  place.want([WANTED]);
  await place.enrolments.reconcile();
  place.want([], { complete: false });
  strictEqual(place.enrolments.get(UID)?.isWanted, true);
  await place.enrolments.reconcile();
  deepStrictEqual(place.states, ["active"]);
  place.node.registered = [...WANTED.addresses];
  place.want([]);
  await place.enrolments.reconcile();
  deepStrictEqual(place.states, ["leaving"]);
});

Deno.test("a cgroup that is made later: programs at once where they are wanted, let go where not", async () => {
  using place = new Place();
  place.node.failing.set("open", new NotThereYet("no process yet"));
  place.want([WANTED]);
  await place.enrolments.reconcile();
  match(place.enrolments.get(UID)?.reason ?? "", /cgroup has not been found/);
  deepStrictEqual(place.held, ["hold kubepods"]);
  place.make(OTHER);
  await holds(() => place.held.includes(`let go kubepods/pod${OTHER}`));
  place.make(UID);
  await holds(() => place.node.take().includes("attach"));
  place.node.failing.clear();
  await holds(() => place.states.join() === "active"); // tried again by itself
  strictEqual(place.held.includes(`let go kubepods/pod${UID}`), false);
});

Deno.test("one step of a pod at a time: a certificate that is on its way is waited for once", async () => {
  using place = new Place(UID);
  const issued = Promise.withResolvers<void>();
  place.node.certificate = () => issued.promise;
  place.want([WANTED]);
  const [first, second] = [place.enrolments.reconcile(), place.enrolments.reconcile()];
  await second;
  await holds(() => place.node.done.includes("certificate"));
  strictEqual(place.node.done.filter((each) => each === "open").length, 1);
  issued.resolve();
  await first;
  deepStrictEqual(place.states, ["active"]);
  strictEqual(place.node.done.filter((each) => each === "open").length, 1);
});

Deno.test("a step that fails is tried again, and fails nothing else", async () => {
  using place = new Place(UID);
  place.want([WANTED]);
  await place.enrolments.reconcile();
  place.node.failing.set("release", new Error("EBUSY"));
  place.want([]);
  await place.enrolments.reconcile();
  deepStrictEqual(place.states, ["leaving"]);
  place.node.time += 6_000;
  place.node.failing.clear();
  await holds(() => place.states.length === 0);
});

Deno.test("a pod that is wanted again in the moment when it has gone is enrolled anew", async () => {
  using place = new Place(UID);
  place.want([WANTED]);
  await place.enrolments.reconcile();
  const before = place.enrolments.get(UID);
  place.node.inUse = false; // it leaves at once
  place.want([]);
  const leaving = place.enrolments.reconcile();
  strictEqual(before?.state, "gone");
  place.want([WANTED]);
  place.node.inUse = true;
  await leaving;
  strictEqual(place.enrolments.get(UID) === before, false);
  await holds(() => place.states.join() === "active");
});

Deno.test("an enrolment that has paused begins nothing more, and leaves everything as it is", async () => {
  using place = new Place(UID);
  place.want([WANTED]);
  await place.enrolments.reconcile();
  place.enrolments.pause();
  place.node.take();
  place.want([]);
  await place.enrolments.reconcile();
  deepStrictEqual([place.states, place.node.take()], [["active"], []]);
  strictEqual(place.held.includes("hold "), false, "pods stay held");
});

Deno.test("the end: every pod leaves, whatever fails for one, and nobody is held any more", async () => {
  using place = new Place(UID, OTHER);
  place.want([WANTED, { ...WANTED, uid: OTHER, name: "db" }]);
  await place.enrolments.reconcile();
  deepStrictEqual(place.states, ["active", "active"]);
  place.node.take();
  let failures = 1;
  const { kernel } = place.node.services;
  const { detach } = kernel;
  kernel.detach = (uid) => {
    detach(uid);
    if (failures-- > 0) throw new Error("EBUSY");
  };
  await place.enrolments.stop();
  deepStrictEqual(place.node.take(), ["detach", "detach", "close"]);
  deepStrictEqual([place.held.at(-1), place.states[1]], ["hold ", "gone"]);
});

Deno.test("a pod that lacks nothing is looked at every second, and all cgroups every five", async () => {
  using place = new Place(UID, OTHER);
  place.want([WANTED]);
  await place.enrolments.reconcile();
  place.node.inUse = false;
  await place.enrolments.reconcile();
  deepStrictEqual(place.states, ["active"], "not yet");
  {
    using _later = later(1_000);
    await place.enrolments.reconcile();
    deepStrictEqual(place.states, ["waiting"]);
  }
  place.held.length = 0;
  using _later = later(5_000);
  await place.enrolments.reconcile();
  deepStrictEqual(place.held, [`let go kubepods/pod${OTHER}`], "whatever was not told of it");
});

Deno.test("how soon it looks again: at once where a new pod lacks something, five times a second where an old one does", async () => {
  using timers = new HeldTimers(20, 200, 1_000);
  using place = new Place(UID);
  const pending = () => [20, 200, 1_000].map((milliseconds) => timers.pending(milliseconds));
  place.node.failing.set("open", new NotThereYet("no process yet"));
  place.want([WANTED]);
  await place.enrolments.reconcile();
  deepStrictEqual(pending(), [1, 0, 0]);
  place.node.time += 5_000;
  await place.enrolments.reconcile();
  deepStrictEqual(pending(), [0, 1, 0]);
  place.node.failing.clear();
  await place.enrolments.reconcile();
  deepStrictEqual([place.states, pending()], [["active"], [0, 0, 1]]);
  place.enrolments.pause();
  deepStrictEqual(pending(), [0, 0, 0]);
});

Deno.test("other roots are told to every pod", async () => {
  using place = new Place(UID);
  place.want([WANTED]);
  await place.enrolments.reconcile();
  place.enrolments.trust([new Uint8Array(1), new Uint8Array(2)]);
  deepStrictEqual(place.node.shown, [2]);
});

/** The monotonic clock is ahead by so much. */
function later(milliseconds: number): Disposable {
  const { now } = performance;
  performance.now = () => now.call(performance) + milliseconds;
  return { [Symbol.dispose]: () => void (performance.now = now) };
}
