import assert from "node:assert/strict";
import { ApiError, NoAnswer } from "../kubernetes/errors.ts";
import type { RequestOptions } from "../kubernetes/api.ts";
import { HeldTimers } from "../timers_for_tests.ts";
import { type PublisherDelays, RegistryPublisher } from "./publisher.ts";
import type { EndpointSliceObject, RegistryEntry } from "./registry.ts";

const NAME = "registry-n1-ipv4-0";
const LABEL = "kube-gateway.io/registry-node";

Deno.test("what is wanted is written, once, and the last of a burst counts", async () => {
  const { api, publisher } = open();
  await Promise.all(range(20).map((count) => publisher.publish(entries(count + 1))));
  assert.equal(api.slices.get(NAME)?.endpoints.length, 20);
  assert(api.writes.length <= 2, `${api.writes}`);
  const { requests } = api;
  await publisher.publish(entries(20));
  assert.equal(api.requests, requests, "the same again is no request");
  await publisher.close();
});

Deno.test("what has left is seen to have left: a slice stays without pods until the agent goes", async () => {
  const { api, publisher } = open();
  await publisher.publish([]);
  assert.deepEqual(api.writes, [], "a node that never had a pod has no slice");
  await publisher.publish(entries(3));
  await publisher.publish([]);
  assert.deepEqual(api.slices.get(NAME)?.endpoints, []);
  assert.deepEqual(api.writes, [`POST ${NAME}`, `PATCH ${NAME}`]);
  const next = new RegistryPublisher(api, "n1", DELAYS);
  await next.publish([]);
  await publisher.publish([]);
  assert.equal(api.writes.length, 2, "nothing to write for anybody");
  await publisher.publish(entries(2));
  assert.equal(api.slices.get(NAME)?.endpoints.length, 2);
  await publisher.withdraw();
  assert.equal(api.slices.size, 0);
  await next.close();
  await publisher.close();
});

Deno.test("what an earlier agent left is changed into what is wanted, not made again", async () => {
  const { api, publisher } = open();
  await publisher.publish(entries(3));
  await publisher.close();
  const next = new RegistryPublisher(api, "n1", DELAYS);
  api.writes.length = 0;
  await next.publish(entries(3));
  assert.deepEqual(api.writes, []);
  await next.publish(entries(2));
  assert.deepEqual(api.writes, [`PATCH ${NAME}`]);
  await next.close();
});

Deno.test("a server that refuses is asked again for ever, and the problem says why", async () => {
  const { api, publisher } = open();
  api.answer = () => Promise.reject(new ApiError(403, "Forbidden", "no rights here"));
  let written = false;
  publisher.publish(entries(1)).then(() => written = true);
  await until(() => /no rights here/.test(messages(publisher)));
  const before = api.requests;
  await until(() => api.requests > before + 5);
  assert.equal(written, false);
  api.answer = undefined;
  await until(() => written);
  assert.equal(messages(publisher), "");
  assert.equal(api.slices.get(NAME)?.endpoints.length, 1);
  await publisher.close();
});

Deno.test("a server that never answers is a problem, and nobody has to wait for it", async () => {
  const { api, publisher } = open();
  api.answer = (signal) =>
    new Promise((_, reject) => {
      const end = () => reject(new NoAnswer("no answer to it in 10 s"));
      signal.addEventListener("abort", end);
    });
  const superseded = publisher.publish(entries(1));
  await until(() => /no answer for/.test(messages(publisher)));
  const waiting = publisher.publish(entries(2));
  await superseded;
  await publisher.close();
  await waiting;
  assert.equal(
    await publisher.publish(entries(3)),
    undefined,
    "after its end nothing is waited for",
  );
});

Deno.test("an answer that came too late has been written all the same: that is no error", async () => {
  const { api, publisher } = open();
  let lost = 1;
  api.after = (method) => {
    if (method === "POST" && lost-- > 0) throw new NoAnswer("no answer");
  };
  await publisher.publish(entries(1));
  assert.deepEqual(api.writes, [`POST ${NAME}`]);
  await publisher.close();
});

Deno.test("slices that vanish or change are put right, more and more rarely, which is a problem", async () => {
  const { api, publisher } = open({ calm: 3_000 });
  await publisher.publish(entries(2));
  publisher.observed(new Map(api.slices));
  const undone: number[] = [];
  while (undone.length < 6) {
    await until(() => api.slices.size > 0);
    undone.push(performance.now());
    api.slices.clear();
    publisher.observed(new Map());
  }
  // Between the first and the second only as long as it takes; then 10, 20, 40, 80 ms.
  const gaps = undone.slice(2).map((at, index) => at - (undone[index + 1] ?? 0));
  assert(gaps.every((gap, index) => gap > 8 * 2 ** index), `${gaps}`);
  assert.match(messages(publisher), /changed or deleted .* times in a row/);
  await until(() => api.slices.get(NAME)?.endpoints.length === 2);
  const [slice] = api.slices.values();
  api.slices.set(NAME, { ...slice, endpoints: [] } as unknown as Kept);
  publisher.observed(new Map(api.slices));
  await until(() => api.slices.get(NAME)?.endpoints.length === 2);
  await until(() => {
    publisher.observed(new Map(api.slices));
    return messages(publisher) === "";
  });
  await publisher.close();
});

Deno.test("a watch that is behind our own writes makes us write nothing, others' change does at once", async () => {
  const { api, publisher } = open({ settle: 10_000 });
  await publisher.publish(entries(1));
  const behind = new Map(api.slices);
  await publisher.publish(entries(2));
  publisher.observed(new Map()); // before the first write
  publisher.observed(behind);
  await settled();
  assert.equal(api.writes.length, 2);
  publisher.observed(new Map(api.slices));
  api.slices.clear();
  publisher.observed(new Map());
  await until(() => api.slices.size === 1);
  await publisher.close();
});

Deno.test("a change of others is seen however often the watch tells of something", async () => {
  const { api, publisher } = open();
  await publisher.publish(entries(1));
  api.slices.clear();
  for (let count = 0; count < 100 && api.writes.length < 2; count++) {
    publisher.observed(new Map(api.slices));
    await tick();
  }
  assert.equal(api.writes.length, 2, "what is missing is made again");
  await publisher.close();
});

Deno.test("the owner is the Node that is there now; without one there is no owner", async () => {
  const { api, publisher } = open();
  await publisher.publish(entries(1));
  assert.deepEqual(api.owners(), ["uid-1"]);
  // The Node goes, and with it, by the garbage collector, the slices.
  api.nodeUid = undefined;
  api.slices.clear();
  publisher.observed(api.slices);
  await until(() => api.slices.size === 1);
  assert.deepEqual(api.owners(), []);
  api.nodeUid = "uid-2";
  await until(() => api.owners().join() === "uid-2");
  await publisher.close();
});

Deno.test("a Node that must not be read keeps no registry from being written", async () => {
  const { api, publisher } = open();
  api.nodeUid = 403;
  await publisher.publish(entries(1));
  assert.deepEqual(api.owners(), []);
  await publisher.close();
});

Deno.test("somebody else's object under our name: another name, a problem, and back when it is gone", async () => {
  const { api, publisher } = open();
  const foreign = { metadata: { name: NAME, labels: { [LABEL]: "n2" } }, endpoints: [] };
  api.slices.set(NAME, foreign as unknown as Kept);
  await publisher.publish(entries(1));
  const [, other = ""] = [...api.slices.keys()];
  assert.equal(other, `${NAME}-other`);
  assert.match(messages(publisher), /registry-n1-ipv4-0 is not labelled as this node's/);
  await publisher.publish(entries(2));
  assert.equal(api.slices.get(other)?.endpoints.length, 2, "the other name stays");
  assert.equal(api.slices.get(NAME), foreign);
  api.slices.delete(NAME);
  publisher.observed(api.own());
  await until(() => api.slices.has(NAME) && api.slices.size === 1);
  await until(() => messages(publisher) === "");
  await publisher.close();
});

Deno.test("one slice that is refused keeps no other from being written", async () => {
  const { api, publisher } = open();
  api.before = (method, name) => {
    if (method === "POST" && name === NAME) throw new ApiError(422, "Invalid", "not this one");
  };
  publisher.publish([{ ...entry(0), addresses: ["10.0.0.1", "fd00::1"] }]);
  await until(() => api.slices.has("registry-n1-ipv6-0"));
  assert.match(messages(publisher), /not this one/);
  await publisher.close();
});

Deno.test("an entry that moves to another slice is never in none", async () => {
  const { api, publisher } = open();
  await publisher.publish(entries(250));
  const missing: string[] = [];
  api.after = () => {
    const there = new Set(
      [...api.slices.values()].flatMap(({ endpoints }) =>
        endpoints.map((one) => one.targetRef.uid)
      ),
    );
    missing.push(...stay.map(({ uid }) => uid).filter((uid) => !there.has(uid)));
  };
  let stay = entries(250).slice(1);
  await publisher.publish(stay); // all move forward
  await publisher.publish(entries(250)); // all move back
  stay = entries(250).filter((_, index) => index !== 120);
  await publisher.publish(stay.filter((_, index) => index !== 3).concat(entry(999)));
  stay = stay.filter((_, index) => index !== 3);
  assert.deepEqual(missing.filter((uid) => stay.some((one) => one.uid === uid)), []);
  await publisher.close();
});

Deno.test("after a write that has failed the server is asked what it has, since somebody else may have written", async () => {
  const { api, publisher } = open();
  await publisher.publish(entries(1));
  let failures = 1;
  api.before = (method) => {
    if (method !== "PATCH" || failures-- <= 0) return;
    api.slices.clear(); // meanwhile
    throw new ApiError(500, "", "once");
  };
  await publisher.publish(entries(2));
  assert.equal(api.slices.get(NAME)?.endpoints.length, 2);
  assert.deepEqual(api.writes, [`POST ${NAME}`, `POST ${NAME}`]);
  await publisher.close();
});

Deno.test("what others undo while it writes is put right although no watch tells of it again", async () => {
  const { api, publisher } = open({ recheck: 60_000 });
  await publisher.publish(entries(1));
  let isFirst = true;
  api.after = () => {
    if (!isFirst) return;
    isFirst = false;
    api.slices.clear();
    publisher.observed(new Map());
  };
  await publisher.publish(entries(2));
  await until(() => api.slices.get(NAME)?.endpoints.length === 2);
  await publisher.close();
});

Deno.test("a look at everything believes the watch, not what was written last", async () => {
  const { api, publisher } = open({ swift: 60_000, settle: 60_000, longestSettle: 60_000 });
  await publisher.publish(entries(1));
  publisher.observed(new Map(api.slices));
  api.slices.clear();
  publisher.observed(new Map()); // to be put right in a minute
  await until(() => api.slices.size === 1);
  await publisher.close();
});

Deno.test("a look at everything is due once, however often was written before, and never after the end", async () => {
  using timers = new HeldTimers(DELAYS.recheck);
  const { api, publisher } = open({ swift: 60_000, settle: 60_000, longestSettle: 60_000 });
  for (const count of [1, 2, 3]) await publisher.publish(entries(count));
  assert.equal(timers.pending(DELAYS.recheck), 1);
  api.slices.clear();
  publisher.observed(new Map()); // to be put right in a minute
  const { requests } = api;
  timers.end(DELAYS.recheck);
  await until(() => api.slices.size === 1 && timers.pending(DELAYS.recheck) === 1);
  assert.equal(api.requests, requests + 2, "the Node is read, and what is missing is written");
  await publisher.close();
  assert.equal(timers.pending(DELAYS.recheck), 0);
});

Deno.test("what others put back to what it was before counts as theirs once the watch has caught up", async () => {
  const { api, publisher } = open({ settle: 60_000, longestSettle: 60_000, recheck: 60_000 });
  await publisher.publish(entries(1));
  const former = new Map(api.slices);
  await publisher.publish(entries(2));
  publisher.observed(new Map(api.slices));
  for (const [name, slice] of former) api.slices.set(name, slice);
  publisher.observed(former);
  await until(() => api.slices.get(NAME)?.endpoints.length === 2);
  await publisher.close();
});

Deno.test("however long it fails, it is tried again before long", async () => {
  const { api, publisher } = open({ retry: 1, longestRetry: 2 });
  api.answer = () => Promise.reject(new ApiError(403, "Forbidden", "no rights here"));
  publisher.publish(entries(1));
  await until(() => api.requests > 40); // two each; without a bound it would take minutes
  await publisher.close();
});

Deno.test("a Node that comes soon is found soon: the slices get their owner long before all is looked at", async () => {
  const { api, publisher } = open({ recheck: 60_000 });
  api.nodeUid = undefined;
  await publisher.publish(entries(1));
  api.nodeUid = "uid-2";
  await until(() => api.owners().join() === "uid-2");
  await publisher.close();
});

Deno.test("a Node that cannot be read for a moment takes no owner away; who does not answer is waited for", async () => {
  const { api, publisher } = open();
  await publisher.publish(entries(1));
  api.nodeUid = 500;
  await publisher.publish(entries(2));
  assert.deepEqual(api.owners(), ["uid-1"]);
  await publisher.close();

  const silent = open();
  silent.api.nodeUid = 0;
  silent.publisher.publish(entries(1));
  await until(() => /no answer/.test(messages(silent.publisher)));
  assert.deepEqual(silent.api.writes, [], "nobody would take the slices either");
  await silent.publisher.close();
});

Deno.test("an entry leaves no slice before the slice is written that it goes to", async () => {
  const { api, publisher } = open();
  await publisher.publish(entries(101).slice(1));
  assert.equal(api.slices.size, 1);
  let isRefused = true;
  api.before = (method) => {
    if (isRefused && method === "POST") throw new ApiError(422, "Invalid", "no more slices");
  };
  publisher.publish(entries(101)); // the first one pushes the last one into another slice
  await until(() => /no more slices/.test(messages(publisher)));
  const there = () =>
    [...api.slices.values()].some(({ endpoints }) =>
      endpoints.some(({ targetRef }) => targetRef.uid === "uid-0100")
    );
  assert(there(), "it is where it was");
  isRefused = false;
  await until(() => api.slices.size === 2);
  assert(there());
  await publisher.close();
});

Deno.test("a namespace that is not there is an error that is told, not another's object", async () => {
  const { api, publisher } = open();
  api.before = (method) => {
    if (method === "POST") throw new ApiError(404, "NotFound", "no namespace kube-gateway");
  };
  publisher.publish(entries(1));
  await until(() => /no namespace kube-gateway/.test(messages(publisher)));
  await publisher.close();
});

Deno.test("a conflict with one of our own slices is no foreign object: it is written again under its name", async () => {
  const { api, publisher } = open();
  await publisher.publish(entries(1));
  let conflicts = 1;
  api.before = (method) => {
    if (method === "PATCH" && conflicts-- > 0) throw new ApiError(409, "Conflict", "changed");
  };
  await publisher.publish(entries(2));
  assert.deepEqual([...api.slices.keys()], [NAME]);
  assert.equal(messages(publisher), "");
  await publisher.close();
});

Deno.test("leaving empties and deletes what is there, and what somebody has deleted before is no error", async () => {
  const { api, publisher } = open();
  await publisher.publish(entries(1));
  api.nodeUid = 500;
  const methods: string[] = [];
  api.before = (method, name) => {
    methods.push(method);
    if (method === "DELETE") api.slices.delete(name);
  };
  await publisher.withdraw();
  assert.deepEqual([api.slices.size, methods], [0, ["PATCH", "DELETE"]]);
  await publisher.withdraw();
  assert.equal(methods.length, 2, "nothing is left, and it is known");
  await publisher.close();
});

Deno.test("its end is when nothing is under way any more", async () => {
  const { api, publisher } = open();
  let isEnded = false;
  api.answer = (signal) =>
    new Promise((_, reject) => {
      signal.addEventListener("abort", async () => {
        await tick();
        isEnded = true;
        reject(signal.reason);
      });
    });
  publisher.publish(entries(1));
  await tick();
  await publisher.close();
  assert.equal(isEnded, true);
});

Deno.test("what is wanted while it pauses is written when that is over, by nobody else", async () => {
  const { api, publisher } = open({ retry: 60_000, longestRetry: 60_000 });
  api.answer = () => Promise.reject(new ApiError(403, "Forbidden", "no rights here"));
  publisher.publish(entries(1));
  await until(() => /no rights here/.test(messages(publisher)));
  const { requests } = api;
  publisher.publish(entries(2));
  assert.equal(api.requests, requests);
  await publisher.close();
});

Deno.test("a conflict without end is a failure, and told", async () => {
  const { api, publisher } = open();
  await publisher.publish(entries(1));
  api.before = (method) => {
    if (method === "PATCH") throw new ApiError(409, "Conflict", "changed");
  };
  publisher.publish(entries(2));
  await until(() => /others write under the same names/.test(messages(publisher)));
  api.before = () => {};
  await until(() => api.slices.get(NAME)?.endpoints.length === 2);
  await publisher.close();
});

Deno.test("another node's entry is the caller's mistake", () => {
  const { publisher } = open();
  assert.throws(() => publisher.publish([{ ...entry(0), node: "n2" }]), TypeError);
});

type Kept = EndpointSliceObject & { metadata: { ownerReferences?: { uid: string }[] } };

/**
 * What of an API server a publisher needs: the slices in memory, and answers that a test decides
 * on.
 */
class TestApi {
  readonly slices = new Map<string, Kept>();
  nodeUid: string | number | undefined = "uid-1";
  readonly writes: string[] = [];
  requests = 0;
  /** Instead of anything else. */
  answer: ((signal: AbortSignal) => Promise<unknown>) | undefined;
  before: (method: string, name: string) => void = () => {};
  after: (method: string) => void = () => {};

  async request(method: string, path: string, options: RequestOptions = {}): Promise<unknown> {
    this.requests++;
    await tick();
    options.signal?.throwIfAborted();
    if (this.answer !== undefined) return await this.answer(options.signal as AbortSignal);
    if (path.startsWith("/api/v1/nodes/")) return this.#node();
    const body = options.body as Kept | undefined;
    const last = path.split("/").at(-1) ?? "";
    const name = method === "POST" ? body?.metadata.name ?? "" : last;
    this.before(method, name);
    const now = this.slices.get(name);
    if (method === "GET") {
      assert.equal(options.query?.labelSelector, `${LABEL}=n1`);
      return { metadata: { resourceVersion: "1" }, items: [...this.own().values()] };
    }
    if (method === "POST" && now !== undefined) throw new ApiError(409, "AlreadyExists", name);
    if (method !== "POST" && now === undefined) throw new ApiError(404, "NotFound", name);
    this.writes.push(`${method} ${name}`);
    if (method === "DELETE") this.slices.delete(name);
    else this.slices.set(name, structuredClone({ ...now, ...body }) as Kept);
    this.after(method);
    return {};
  }

  own(): Map<string, Kept> {
    return new Map(
      [...this.slices].filter(([, { metadata }]) => metadata.labels?.[LABEL] === "n1"),
    );
  }

  owners(): string[] {
    return [...this.slices.values()].flatMap(({ metadata }) =>
      (metadata.ownerReferences ?? []).map(({ uid }) => uid)
    );
  }

  #node(): unknown {
    if (this.nodeUid === undefined) throw new ApiError(404, "NotFound", "no such node");
    if (this.nodeUid === 0) throw new NoAnswer("no answer");
    if (typeof this.nodeUid === "number") throw new ApiError(this.nodeUid, "", "not allowed");
    return { metadata: { uid: this.nodeUid } };
  }
}

/** A hundredth of the real ones. */
const DELAYS = {
  swift: 1,
  settle: 10,
  longestSettle: 160,
  retry: 2,
  longestRetry: 20,
  patience: 30,
  ownerless: 30,
  recheck: 400,
  calm: 500,
};

function open(delays: Partial<PublisherDelays> = {}) {
  const api = new TestApi();
  return { api, publisher: new RegistryPublisher(api, "n1", { ...DELAYS, ...delays }) };
}

function entry(index: number): RegistryEntry {
  return {
    uid: `uid-${String(index).padStart(4, "0")}`,
    namespace: "default",
    name: `pod-${index}`,
    identity: "spiffe://cluster.local/ns/default/sa/default",
    node: "n1",
    addresses: [`10.1.${index >> 8}.${index & 255}`],
    ready: true,
  };
}

function entries(count: number): RegistryEntry[] {
  return range(count).map(entry);
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

function messages(publisher: RegistryPublisher): string {
  return publisher.problems().map(({ message }) => message).join("\n");
}

function tick(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1));
}

function settled(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 50));
}

async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + 10_000;
  while (!condition()) {
    assert(performance.now() < end, `not within 10 s: ${condition}`);
    await tick();
  }
}
