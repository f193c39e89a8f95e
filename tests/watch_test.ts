/**
 * The promise: what the API client believes of the cluster is what the API server has, whatever
 * happens to the server, the network and the answers: nothing is missed for good, nothing is taken
 * for deleted that is there.
 */
import assert from "node:assert/strict";
import * as v from "valibot";
import { KubernetesApi } from "../src/kubernetes/api.ts";
import { tokenFile } from "../src/kubernetes/connection.ts";
import { watchList, type WatchOptions } from "../src/kubernetes/watch.ts";
import { ApiServer } from "./lab/api_server/controller.ts";
import { delay, until } from "./lab/delay.ts";

const PATH = "/api/v1/namespaces/default/configmaps";
const REFERENCE = (name: string) => ({ resource: "configmaps", namespace: "default", name });

Deno.test("a watch and its server", async (t) => {
  await using server = await ApiServer.start({ bookmarkMs: 200 });
  const account = await server.user("reader", ["system:masters"]);
  using api = new KubernetesApi({
    server: server.url,
    certificateAuthority: server.ca,
    token: tokenFile(account.tokenFile),
  });
  const followed = follow(api, { idleMilliseconds: 2_000 });
  const agrees = (what: string, milliseconds = 10_000) =>
    until(
      async () => {
        const truth = await server.list<ConfigMap>("configmaps", "default");
        return textOf(truth.map(read)) === textOf([...followed.items.values()]);
      },
      milliseconds,
      () => `${what}: believed is ${textOf([...followed.items.values()])}`,
    );
  const changeAll = async () => {
    await put(server, "changed", crypto.randomUUID());
    await put(server, `new-${crypto.randomUUID()}`, "1");
    const [first] = await server.list<ConfigMap>("configmaps", "default");
    await server.delete(REFERENCE(first?.metadata.name ?? ""));
  };
  for (let number = 0; number < 10; number++) await put(server, `old-${number}`, "1");
  // So many that the list has two pages.
  for (let number = 0; number < 70; number++) await put(server, `kept-${number}`, "1");
  await followed.watch.synced;

  await t.step("follows additions, changes and deletions", async () => {
    await changeAll();
    await agrees("changes");
  });

  await t.step("a server that is killed and comes back with other objects", async () => {
    await server.kill();
    await delay(300);
    await server.restart();
    await changeAll();
    await agrees("after the restart");
  });

  await t.step(
    "a server whose state was put back: versions count on from an older one",
    async () => {
      await put(server, "changed-since", "before");
      const backup = await server.backUp();
      await put(server, "changed-since", "after");
      for (let count = 0; count < 30; count++) await changeAll();
      await agrees("before the state was put back");
      const { resourceVersion } = await server.state();
      await backup.putBack();
      await agrees("the state that was put back", 20_000);
      assert(Number((await server.state()).resourceVersion) < Number(resourceVersion));
      await changeAll();
      await agrees("changes of the state that was put back");
    },
  );

  await t.step(
    "objects that are deleted while nobody watches, and of which the history is gone",
    async () => {
      const wrong = await server.misbehave({ user: "reader", verb: "watch", status: 500 });
      await server.disturbWatches({ do: "reset" });
      for (const { metadata: { name } } of await server.list<ConfigMap>("configmaps", "default")) {
        if (name.startsWith("old")) await server.delete(REFERENCE(name));
      }
      await server.compact();
      await wrong[Symbol.asyncDispose]();
      await agrees("deletions while away");
    },
  );

  await t.step("connections on which nothing passes any more", async () => {
    await server.stallConnections({ newOnes: false });
    await changeAll();
    await agrees("after the idle time", 20_000);
    await server.resumeConnections();
  });

  await t.step("410 as an event, as a status, and within a paged list", async () => {
    await server.disturbWatches({ do: "gone" });
    await changeAll();
    await agrees("gone as an event");
    await using _status = await server.misbehave({ verb: "watch", status: 410, times: 1 });
    await server.disturbWatches({ do: "close" });
    await changeAll();
    await agrees("gone as a status");
    await using _page = await server.misbehave({
      verb: "list",
      path: "continue=",
      status: 410,
      times: 1,
      user: "reader",
    });
    await server.disturbWatches({ do: "gone" });
    await changeAll();
    await agrees("gone within a list");
  });

  for (
    const [what, wrong] of Object.entries({
      "500": { status: 500, times: 3 },
      "429 with Retry-After": { status: 429, retryAfter: 1, times: 1 },
      "a body that is no JSON": { garbage: "{ this is no event\n", times: 2 },
      "an end in good order in the middle of a line": {
        cutAfterBytes: 150,
        cutBy: "end" as const,
        times: 2,
      },
      "a reset in the middle of a line": { cutAfterBytes: 150, times: 2 },
      "silence in the middle of a line": {
        cutAfterBytes: 150,
        cutBy: "silence" as const,
        verb: "watch",
        times: 1,
      },
    })
  ) {
    await t.step(`answers of the kind: ${what}`, async () => {
      await using _wrong = await server.misbehave({ user: "reader", ...wrong });
      await server.disturbWatches({ do: "reset" });
      await changeAll();
      await agrees(what, 40_000);
    });
  }

  await t.step("a list of which a page is missing prunes nothing", async () => {
    const before = textOf([...followed.items.values()]);
    const calls = followed.calls();
    const wrong = await server.misbehave({
      user: "reader",
      verb: "list",
      path: "continue=",
      status: 500,
    });
    await server.disturbWatches({ do: "gone" });
    await delay(1_500);
    assert.equal(textOf([...followed.items.values()]), before);
    assert.equal(followed.calls(), calls);
    await wrong[Symbol.asyncDispose]();
    await agrees("the rest of the list");
  });

  await t.step("a token that was replaced in its file", async () => {
    await account.rotate();
    await delay(1_100); // it is read once in a burst
    await server.disturbWatches({ do: "reset" });
    await changeAll();
    await agrees("with the new token");
  });

  await t.step("bookmarks keep a quiet watch young: no new list is needed", async () => {
    const noise = { apiVersion: "v1", kind: "Secret", metadata: { name: "noise" } };
    await server.apply(noise);
    await delay(500); // bookmarks come every 200 ms
    await server.compact();
    const since = Date.now();
    await server.disturbWatches({ do: "close" });
    await changeAll();
    await agrees("after the compaction");
    const requests = await server.requests({ user: "reader", since });
    const lists = requests.filter(({ verb, path }) => verb === "list" && !/limit=1\b/.test(path));
    assert.deepEqual(lists, [], "it went on from the bookmark");
  });

  await t.step(
    "an object that cannot be read keeps its earlier version, and is named",
    async () => {
      await put(server, "changed", "good");
      await agrees("the good one");
      await put(server, "changed", "bad");
      await until(() => followed.watch.problems().size === 1, 5_000, () => "no problem");
      assert.match(followed.watch.problems().get("default/changed") ?? "", /will not read/);
      assert.equal(followed.items.get("default/changed")?.value, "good");
      await put(server, "changed", "better");
      await agrees("the better one");
      assert.equal(followed.watch.problems().size, 0);
    },
  );

  await t.step("a handler that throws does not end it", async () => {
    followed.throwOnce();
    await changeAll();
    await agrees("after the handler has thrown");
    await changeAll();
    await agrees("and again");
  });

  await t.step("in the end, everything at random", async () => {
    const wrongs = [
      { fraction: 0.2, status: 500 },
      { fraction: 0.1, cutAfterBytes: 100 },
      { fraction: 0.1, cutAfterBytes: 700, cutBy: "end" as const },
      { fraction: 0.1, goneEvent: true, verb: "watch" },
    ];
    for (const wrong of wrongs) await server.misbehave({ user: "reader", ...wrong });
    for (let round = 0; round < 30; round++) {
      await changeAll();
      if (round % 5 === 0) await server.disturbWatches({ do: "reset" });
      if (round % 7 === 0) await server.compact();
      await delay(30);
    }
    await server.behave();
    await agrees("after all of it", 30_000);
  });

  await followed.watch.close();
});

Deno.test("a server that is away is asked at most five times a second, by all together", async () => {
  await using server = await ApiServer.start();
  const account = await server.user("reader", ["system:masters"]);
  using api = new KubernetesApi({
    server: server.url,
    certificateAuthority: server.ca,
    token: tokenFile(account.tokenFile),
  });
  const watches = Array.from({ length: 8 }, () => follow(api, {}));
  await Promise.all(watches.map(({ watch }) => watch.synced));
  await server.kill();
  await using counter = await server.countConnectionsWhileDown();
  const asked = Array.from(
    { length: 30 },
    () => api.request("GET", PATH, { timeoutMs: 3_000 }).catch(() => "failed"),
  );
  await delay(4_000);
  assert.deepEqual(new Set(await Promise.all(asked)), new Set(["failed"]));
  assert(api.silence > 3_500);
  await counter.stop();
  assert(counter.connections.length > 3 && counter.most(1_000) <= 5, `${counter.most(1_000)}`);
  await server.restart();
  await put(server, "back", "1");
  await until(
    () => watches.every(({ items }) => items.has("default/back")),
    20_000,
    () => "not all watches have found the server again",
  );
  assert(api.silence < 2_000);
  for (const { watch } of watches) await watch.close();
});

interface ConfigMap {
  metadata: { name: string };
  data?: { value?: string };
}

interface Item {
  name: string;
  value: string;
}

const Schema = v.object({
  metadata: v.object({ name: v.string() }),
  data: v.optional(v.object({ value: v.optional(v.string()) })),
});

function read(object: unknown): Item {
  const { metadata: { name }, data } = v.parse(Schema, object);
  if (data?.value === "bad") throw new Error("will not read this");
  return { name, value: data?.value ?? "" };
}

function follow(api: KubernetesApi, options: Partial<WatchOptions<Item>>) {
  let items: ReadonlyMap<string, Item> = new Map();
  let calls = 0;
  let throws = false;
  const watch = watchList(api, {
    name: "config maps",
    path: PATH,
    read,
    onChange: (all) => {
      items = new Map(all);
      calls++;
      if (!throws) return;
      throws = false;
      throw new Error("the handler's own");
    },
    ...options,
  });
  return {
    watch,
    get items() {
      return items;
    },
    calls: () => calls,
    throwOnce: () => void (throws = true),
  };
}

async function put(server: ApiServer, name: string, value: string): Promise<void> {
  const metadata = { name, namespace: "default" };
  await server.apply({ apiVersion: "v1", kind: "ConfigMap", metadata, data: { value } });
}

function textOf(items: Item[]): string {
  return items.map(({ name, value }) => `${name}=${value}`).sort().join(" ");
}
