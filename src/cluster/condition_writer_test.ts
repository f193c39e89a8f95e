import assert from "node:assert/strict";
import type { RequestOptions } from "../kubernetes/api.ts";
import { ApiError, NoAnswer } from "../kubernetes/errors.ts";
import { isDnsSubdomain } from "../names.ts";
import { ConditionWriter, cut, eventName } from "./condition_writer.ts";
import { type Pod, readPod } from "./objects.ts";
import type { Verdict } from "./verdict.ts";

Deno.test("a condition is written once, and an Event says that it has changed", async () => {
  const { api, writer } = open(10_000);
  const pod = api.addPod("web");
  await writer.tell([enrolled(pod())]);
  await writer.tell([enrolled(pod())]);
  await settled();
  assert.deepEqual(api.conditions, ["web True Enrolled"]);
  assert.deepEqual(api.events, ["web Enrolled"]);
  await writer.tell([waiting(pod())]);
  assert.deepEqual(api.events, ["web Enrolled", "web Waiting"]);
  await writer.close();
});

Deno.test("what the object does not show is said again, more and more rarely", async () => {
  const { api, writer } = open();
  const pod = api.addPod("web");
  for (let undone = 0; undone < 6; undone++) {
    await until(async () => {
      await writer.tell([enrolled(pod())]);
      return pod().secured !== undefined;
    });
    api.forget("web");
  }
  const gaps = api.times.slice(1).map((at, index) => at - (api.times[index] ?? 0));
  assert.equal(gaps.length, 5);
  assert(gaps.every((gap, index) => gap > 8 * 2 ** index), `${gaps}`);
  await until(async () => {
    await writer.tell([enrolled(pod())]);
    return pod().secured?.status === "True";
  });
  assert.deepEqual(api.events, ["web Enrolled"], "there is nothing new to tell");
  await writer.close();
});

Deno.test("what could not be said is said later, whatever the server answered, and then its Event", async () => {
  for (const error of [503, 403, 422, 409, 404, 0]) {
    const { api, writer } = open();
    const pod = api.addPod("web");
    api.failures.push(...Array(3).fill(error));
    await writer.tell([enrolled(pod())]);
    assert.equal(pod().secured, undefined);
    assert.deepEqual(api.events, [], "an Event of what is not so");
    await until(() => pod().secured?.status === "True");
    await until(() => api.events.join() === "web Enrolled");
    await writer.close();
  }
});

Deno.test("a pod whose request hangs keeps no other from being told, nor what comes after it", async () => {
  const { api, writer } = open();
  const [web, db] = [api.addPod("web"), api.addPod("db")];
  const release = api.hang("web");
  writer.tell([enrolled(web()), enrolled(db())]);
  await until(() => db().secured?.status === "True");
  writer.tell([waiting(web()), waiting(db())]);
  await until(() => db().secured?.status === "False");
  release();
  await until(() => web().secured?.status === "False");
  const ofWeb = api.conditions.filter((line) => line.startsWith("web"));
  assert.deepEqual(ofWeb.slice(0, 2), ["web True Enrolled", "web False Waiting"]);
  assert.equal(ofWeb.lastIndexOf("web True Enrolled"), 0);
  await writer.close();
});

Deno.test("what is not secured any more is said first, and conditions before Events", async () => {
  const { api, writer } = open(10_000);
  const pods = Array.from({ length: 60 }, (_, index) => api.addPod(`pod-${index}`));
  await writer.tell(pods.map((pod, index) => index < 40 ? enrolled(pod()) : waiting(pod())));
  const [first, ...others] = [
    api.lines.findIndex((line) => line.includes(" True ")),
    api.lines.findLastIndex((line) => line.includes(" False ")),
    api.lines.findIndex((line) => line.startsWith("event")),
  ];
  assert(first >= 20 - 16 && api.lines.slice(0, 4).every((line) => line.includes(" False ")));
  assert((others[1] ?? 0) >= 60 - 16, `${others}`);
  assert.equal(api.events.length, 60);
  await writer.close();
});

Deno.test("the same in other words is said after a while, something else at once", async () => {
  const { api, writer } = open(10, 10_000);
  const pod = api.addPod("web");
  const say = (verdict: Verdict) => writer.tell([verdict]);
  await say(waiting(pod()));
  for (let second = 0; second < 100; second++) {
    void say({ ...waiting(pod()), message: `it is second ${second}` });
  }
  await settled();
  assert.equal(api.conditions.length, 1);
  await say(enrolled(pod()));
  assert.deepEqual(api.conditions.at(-1), "web True Enrolled");
  await writer.close();
});

Deno.test("pods that change all the time keep none waiting that has not been told for long", async () => {
  const { api, writer } = open(10_000);
  const restless = Array.from({ length: 40 }, (_, index) => api.addPod(`restless-${index}`));
  const calm = api.addPod("calm");
  let turn = 0;
  const verdicts = () => [
    ...restless.map((pod) => ({ ...waiting(pod()), message: `not yet: ${turn++}` })),
    enrolled(calm()),
  ];
  await writer.tell(verdicts().slice(0, -1));
  const said = api.conditions.length;
  await until(() => {
    void writer.tell(verdicts());
    return calm().secured !== undefined || api.conditions.length > said + 1_000;
  });
  const before = api.conditions.indexOf("calm True Enrolled") - said;
  assert(before >= 0 && before <= 16, `${before} others were told before it`);
  await writer.close();
});

Deno.test("a namespace's hundred pods keep another's waiting neither for its condition nor for its Event", async () => {
  const { api, writer } = open(10_000);
  const evil = Array.from(
    { length: 100 },
    (_, index) => api.addPod(`evil-${index}`, undefined, "evil"),
  );
  const calm = api.addPod("calm", undefined, "shop");
  await writer.tell([...evil, calm].map((pod) => enrolled(pod())));
  const at = (line: string) => api.lines.findIndex((each) => each.startsWith(line));
  assert(at("calm") >= 0 && at("calm") < 16, `its condition: ${at("calm")}`);
  const before = at("event calm") - at("event ");
  assert(before >= 0 && before < 16, `${before} Events before its own`);
  await writer.close();
});

Deno.test("pods that change all the time keep no Event waiting", async () => {
  const { api, writer } = open(10_000);
  const restless = Array.from({ length: 40 }, (_, index) => api.addPod(`restless-${index}`));
  const calm = api.addPod("calm", undefined, "shop");
  let turn = 0;
  const flap = () =>
    restless.map((pod) =>
      turn++ % 3 === 0 ? enrolled(pod()) : { ...waiting(pod()), message: `${turn}` }
    );
  await writer.tell(flap());
  const said = api.conditions.length;
  await until(() => {
    void writer.tell([...flap(), enrolled(calm())]);
    return api.events.includes("calm Enrolled") || api.conditions.length > said + 1_000;
  });
  assert(api.events.includes("calm Enrolled"));
  await writer.close();
});

Deno.test("an Event is told although the object shows the condition before its turn has come", async () => {
  const { api, writer } = open(10_000);
  const pod = api.addPod("web");
  const told = writer.tell([enrolled(pod())]);
  await until(() => pod().secured !== undefined);
  writer.tell([]);
  await told;
  await until(() => api.events.join() === "web Enrolled");
  await writer.close();
});

Deno.test("a pod that was made again under its name is told of anew, and never with the old one's words", async () => {
  const { api, writer } = open();
  const pod = api.addPod("web");
  const before = pod();
  const after = api.addPod("web", "uid-2")();
  await writer.tell([enrolled(before)]);
  assert.equal(pod().secured, undefined, "the words were another's");
  await writer.tell([waiting(after)]);
  assert.equal(pod().secured?.status, "False");
  await writer.close();
});

Deno.test("a pod is told one thing at a time, and sixteen pods at once", async () => {
  const { api, writer } = open(10_000);
  const pods = Array.from({ length: 40 }, (_, index) => api.addPod(`pod-${index}`));
  const release = api.hang("pod-0");
  writer.tell([enrolled(pods[0]?.() as Pod)]);
  await tick();
  const told = writer.tell([
    waiting(pods[0]?.() as Pod),
    ...pods.slice(1).map((pod) => enrolled(pod())),
  ]);
  await until(() => api.events.length === 39);
  assert.equal(api.most.of("pod-0"), 1);
  assert.equal(api.most.all, 16);
  release();
  await told;
  assert.equal(api.most.of("pod-0"), 1);
  await writer.close();
});

Deno.test("an Event says what is new since the pod's object was first seen, and an old condition is none", async () => {
  const { api, writer } = open(10_000);
  const pod = api.addPod("web");
  await writer.tell([enrolled(pod())]);
  const next = new ConditionWriter(api, "n1", DELAYS); // another agent
  await next.tell([{ ...enrolled(pod()), message: "all is well, still" }]);
  await settled();
  assert.deepEqual(api.events, ["web Enrolled"]);
  await writer.close();
  await next.close();
});

Deno.test("since when a pod is what it is stays, while only the words change", async () => {
  const { api, writer } = open(10_000);
  const pod = api.addPod("web");
  await writer.tell([enrolled(pod())]);
  await new Promise((resolve) => setTimeout(resolve, 1_001 - Date.now() % 1_000)); // the next second
  const { since } = pod().secured ?? {};
  await writer.tell([{ ...enrolled(pod()), message: "all is well, still" }]);
  assert.deepEqual([pod().secured?.message, pod().secured?.since], ["all is well, still", since]);
  await writer.tell([waiting(pod())]);
  assert.notEqual(pod().secured?.since, since);
  await writer.close();
});

Deno.test("a message that is too long for a condition is written once", async () => {
  const { api, writer } = open(20);
  const pod = api.addPod("web");
  const verdict = () => ({ ...enrolled(pod()), message: "x".repeat(2_000) });
  await writer.tell([verdict()]);
  await writer.tell([verdict()]);
  await settled();
  assert.deepEqual(api.conditions, ["web True Enrolled"]);
  await writer.close();
});

Deno.test("how often it is said again has bounds: never more rarely than the longest, and anew after a calm", async () => {
  for (const delays of [{ longest: 2, calm: 600_000 }, { longest: 60_000, calm: 0 }]) {
    const api = new TestApi();
    const writer = new ConditionWriter(api, "n1", { again: 1, rephrase: 0, ...delays });
    const pod = api.addPod("web");
    for (let undone = 0; undone < 16; undone++) { // without a bound it would take a minute
      await until(async () => {
        await writer.tell([enrolled(pod())]);
        return pod().secured !== undefined;
      });
      api.forget("web");
    }
    await writer.close();
  }
});

Deno.test("that something was said lately is remembered, also when it is not to be said for a moment", async () => {
  const { api, writer } = open(10_000);
  const pod = api.addPod("web");
  await writer.tell([enrolled(pod())]);
  api.forget("web");
  await writer.tell([]);
  writer.tell([enrolled(pod())]);
  await settled();
  assert.equal(api.conditions.length, 1, "not before it is time");
  await writer.close();
});

Deno.test("an Event that is refused is not told again", async () => {
  const { api, writer } = open(10_000);
  const pod = api.addPod("web");
  api.eventFailure = new ApiError(403, "Forbidden", "no right to Events");
  await writer.tell([enrolled(pod())]);
  await until(() => api.events.length > 0);
  for (let count = 0; count < 3; count++) await writer.tell([enrolled(pod())]);
  assert.deepEqual(api.events, ["web Enrolled"]);
  await writer.close();
});

Deno.test("an Event that waits for its turn is told, also when nothing is said of its pod any more", async () => {
  const api = new TestApi();
  const writer = new ConditionWriter(api, "n1", { ...DELAYS, calm: 0 });
  const web = api.addPod("web");
  const slow = Array.from({ length: 16 }, (_, index) => api.addPod(`slow-${index}`));
  const releases = slow.map((_, index) => api.hang(`slow-${index}`));
  const told = writer.tell([web, ...slow].map((pod) => enrolled(pod())));
  await until(() => web().secured !== undefined);
  await tick();
  assert.equal(api.events.length, 0, "the slow ones have all places");
  void writer.tell([]);
  for (const release of releases) release();
  await told;
  assert(api.events.includes("web Enrolled"));
  await writer.close();
});

Deno.test("an Event's note is no longer than an API server takes", async () => {
  const { api, writer } = open(10_000);
  const pod = api.addPod("web");
  await writer.tell([{ ...enrolled(pod()), message: "é".repeat(2_000) }]);
  assert.deepEqual(api.notes, ["é".repeat(512)]);
  await writer.close();
});

Deno.test("after its end nothing is waited for any more", async () => {
  const { api, writer } = open(60_000);
  const pod = api.addPod("web");
  api.failures.push(503);
  const { setTimeout, clearTimeout } = globalThis;
  const timers = new Set<unknown>();
  try {
    globalThis.setTimeout = ((end: () => void, milliseconds = 0) => {
      const timer = setTimeout(end, milliseconds);
      if (milliseconds > 1_000) timers.add(timer);
      return timer;
    }) as typeof setTimeout;
    globalThis.clearTimeout = (timer) => {
      timers.delete(timer);
      clearTimeout(timer);
    };
    await writer.tell([enrolled(pod())]);
    assert.equal(timers.size, 1, "it is to be said again");
    await writer.close();
    assert.equal(timers.size, 0);
  } finally {
    Object.assign(globalThis, { setTimeout, clearTimeout });
  }
});

Deno.test("its end waits for nobody", async () => {
  const { api, writer } = open();
  const pod = api.addPod("web");
  api.hang("web");
  const told = writer.tell([enrolled(pod())]);
  await tick();
  await writer.close();
  await told;
});

Deno.test("an Event has a name that an API server takes", () => {
  for (
    const name of ["web", "a.b-c", "x".repeat(253), `${"x".repeat(229)}-y`, `${"x".repeat(228)}.-`]
  ) {
    const made = eventName(name);
    assert(isDnsSubdomain(made) && made.length <= 253, made);
    assert.notEqual(made, eventName(name));
  }
});

Deno.test("a note is cut at so many bytes, and never within a character", () => {
  assert.equal(cut("abc", 1024), "abc");
  assert.equal(cut("aé", 2), "a");
  assert.equal(cut("é".repeat(600), 1024), "é".repeat(512));
  assert.equal(cut("🙂🙂", 7), "🙂");
});

/** What of an API server a writer needs: pods in memory, and failures that a test decides on. */
class TestApi {
  readonly #pods = new Map<string, { uid: string; conditions: Record<string, unknown>[] }>();
  readonly #hanging = new Map<string, Promise<void>>();
  /** HTTP statuses, 0 for no answer: what the next writes of conditions end with. */
  readonly failures: number[] = [];
  /** What each Event ends with. */
  eventFailure: Error | undefined;
  readonly conditions: string[] = [];
  readonly events: string[] = [];
  readonly notes: string[] = [];
  readonly lines: string[] = [];
  /** When each condition was written. */
  readonly times: number[] = [];

  /** @returns the pod as a watch would show it now. */
  addPod(name: string, uid = `uid-${name}`, namespace = "default"): () => Pod {
    this.#pods.set(name, { uid, conditions: [] });
    return () => {
      const { uid, conditions } = this.#pods.get(name) ?? { uid: "", conditions: [] };
      return readPod({ kind: "Pod", metadata: { name, uid, namespace }, status: { conditions } });
    };
  }

  forget(name: string): void {
    this.#pods.get(name)?.conditions.splice(0);
  }

  /** @returns what ends it. */
  hang(name: string): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#hanging.set(name, promise);
    return () => {
      this.#hanging.delete(name);
      resolve();
    };
  }

  /** How many requests there were at once, at most. */
  readonly most = new Most();

  async request(method: string, path: string, options: RequestOptions): Promise<unknown> {
    const pod = method === "POST" ? "events" : path.split("/").at(-2) ?? "";
    this.most.begin(pod);
    try {
      return await this.#serve(method, path, options);
    } finally {
      this.most.end(pod);
    }
  }

  async #serve(method: string, path: string, { body, signal }: RequestOptions): Promise<unknown> {
    await tick();
    if (method === "POST") {
      const { regarding, reason, note } = body as {
        regarding: { name: string };
        reason: string;
        note: string;
      };
      this.notes.push(note);
      this.events.push(`${regarding.name} ${reason}`);
      this.lines.push(`event ${regarding.name}`);
      if (this.eventFailure !== undefined) throw this.eventFailure;
      return {};
    }
    const name = path.split("/").at(-2) ?? "";
    const ended = new Promise((_, reject) => {
      signal?.addEventListener("abort", () => reject(signal.reason));
    });
    await Promise.race([this.#hanging.get(name), ended]);
    const failure = this.failures.shift();
    if (failure === 0) throw new NoAnswer("no answer");
    if (failure !== undefined) throw new ApiError(failure, "", "not now");
    const { metadata, status } = body as {
      metadata: { uid: string };
      status: { conditions: [{ status: string; reason: string }] };
    };
    const pod = this.#pods.get(name);
    if (pod?.uid !== metadata.uid) throw new ApiError(409, "Conflict", "another pod");
    const [condition] = status.conditions;
    pod.conditions.splice(0, 1, condition);
    this.times.push(performance.now());
    this.conditions.push(`${name} ${condition.status} ${condition.reason}`);
    this.lines.push(`${name} ${condition.status} ${condition.reason}`);
    return {};
  }
}

class Most {
  readonly #now = new Map<string, number>();
  readonly #most = new Map<string, number>();
  all = 0;

  begin(pod: string): void {
    const now = (this.#now.get(pod) ?? 0) + 1;
    this.#now.set(pod, now);
    this.#most.set(pod, Math.max(now, this.of(pod)));
    this.all = Math.max(this.all, [...this.#now.values()].reduce((sum, each) => sum + each, 0));
  }

  end(pod: string): void {
    this.#now.set(pod, (this.#now.get(pod) ?? 0) - 1);
  }

  of(pod: string): number {
    return this.#most.get(pod) ?? 0;
  }
}

const DELAYS = { again: 10_000, longest: 160_000, calm: 5_000, rephrase: 0 };

function open(again = 10, rephrase = 0): { api: TestApi; writer: ConditionWriter } {
  const api = new TestApi();
  const delays = { again, longest: 16 * again, calm: 5_000, rephrase };
  return { api, writer: new ConditionWriter(api, "n1", delays) };
}

function enrolled(pod: Pod): Verdict {
  return { pod, status: "True", reason: "Enrolled", message: "all is well" };
}

function waiting(pod: Pod): Verdict {
  return { pod, status: "False", reason: "Waiting", message: "not yet" };
}

function tick(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1));
}

/** Longer than it takes to say something again. */
function settled(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 50));
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 10_000;
  while (!await condition()) {
    assert(performance.now() < end, `not within 10 s: ${condition}`);
    await tick();
  }
}
