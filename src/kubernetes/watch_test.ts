import { ok, strictEqual } from "node:assert/strict";
import { ApiServer } from "../../tests/lab/api_server/controller.ts";
import { delay, until } from "../../tests/lab/delay.ts";
import { KubernetesApi } from "./api.ts";
import { tokenFile } from "./connection.ts";
import { watchList } from "./watch.ts";

const USER = "reader";
const PATH = "/api/v1/namespaces/default/configmaps";
const RETRY_AFTER_SECONDS = 6;

Deno.test("each follower keeps a Retry-After, also when another request succeeds meanwhile", async () => {
  await using setup = await open();
  const { server, api } = setup;
  const names = Array.from({ length: 6 }, (_, index) => `one-${index}`);
  for (const name of names) await setup.follow(name);
  await delay(1_100); // so that a watch that ends is asked for again at once
  await server.misbehave({ verb: "get", user: USER, delayMs: 500 });
  const busy = { status: 429, retryAfter: RETRY_AFTER_SECONDS, times: names.length };
  await server.misbehave({ verb: "watch", user: USER, ...busy });
  const slow = api.request("GET", `${PATH}/other`).catch(() => "not found");
  await delay(100);
  await server.disturbWatches({ do: "close", user: USER });
  await slow;
  await until(
    async () => (await setup.watchTimes()).length >= 3 * names.length,
    3 * RETRY_AFTER_SECONDS * 1_000,
    () => "not every follower has come back",
  );
  const waits = await Promise.all(names.map(async (name) => {
    const [, refused = 0, again = 0] = await setup.watchTimes(new RegExp(`${name}&`));
    return again - refused;
  }));
  ok(Math.min(...waits) >= RETRY_AFTER_SECONDS * 1_000, `waited ${waits} ms`);
});

Deno.test("a watch that ends after an event, time and again, is asked for a few times a second", async () => {
  await using setup = await open();
  const { server } = setup;
  await setup.follow("one");
  const { resourceVersion } = await server.state();
  const bookmark = { type: "BOOKMARK", object: { metadata: { resourceVersion } } };
  const garbage = `${JSON.stringify(bookmark)}\n`;
  const short = { garbage, cutAfterBytes: garbage.length, cutBy: "end" as const };
  await server.misbehave({ verb: "watch", user: USER, ...short });
  await server.disturbWatches({ do: "close", user: USER });
  await delay(2_000);
  const { length } = await setup.watchTimes();
  ok(length >= 4 && length <= 12, `${length} in two seconds`);
});

Deno.test("a watch that ends after a while is asked for again at once", async () => {
  await using setup = await open();
  await setup.follow("one");
  await delay(1_100);
  await setup.server.disturbWatches({ do: "close", user: USER });
  await delay(200);
  strictEqual((await setup.watchTimes()).length, 2);
});

Deno.test("a process that stood still begins its watches anew: the server may have given them up", async () => {
  await using setup = await open();
  await setup.follow("one");
  const { now } = Date;
  try {
    await delay(1_100);
    strictEqual((await setup.watchTimes()).length, 1);
    Date.now = () => now() + 60_000;
    await until(
      async () => (await setup.watchTimes()).length === 2,
      5_000,
      () => "the watch goes on",
    );
  } finally {
    Date.now = now;
  }
});

/** A server, a client of it, and followers of one object each. */
async function open() {
  const resources = new AsyncDisposableStack();
  const server = resources.use(await ApiServer.start());
  const account = await server.user(USER, ["system:masters"]);
  const api = resources.use(
    new KubernetesApi({
      server: server.url,
      certificateAuthority: server.ca,
      token: tokenFile(account.tokenFile),
    }),
  );
  return {
    server,
    api,
    follow: async (name: string) => {
      const watch = watchList(api, {
        name,
        path: PATH,
        query: { fieldSelector: `metadata.name=${name}` },
        read: () => name,
        onChange: () => {},
        idleMilliseconds: 4_000,
      });
      resources.defer(() => watch.close());
      await watch.synced;
    },
    /** When watches were asked for, in milliseconds. */
    watchTimes: async (path = /./) =>
      (await server.requests({ user: USER, verb: "watch", path })).map(({ time }) => time),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}
