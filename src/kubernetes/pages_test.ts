import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { configure, type LogRecord, reset } from "@logtape/logtape";
import { ApiServer } from "../../tests/lab/api_server/controller.ts";
import { peakKilobytes, residentKilobytes } from "../../tests/lab/usage.ts";
import { KubernetesApi, MAX_OBJECT_BYTES, type RequestOptions } from "./api.ts";
import { tokenFile } from "./connection.ts";
import { ApiError, TooLarge } from "./errors.ts";
import { MAX_PAGE_BYTES, readPages } from "./pages.ts";
import { watchList } from "./watch.ts";

const PATH = "/api/v1/namespaces/default/configmaps";
const MEGABYTE = 1_000_000;

Deno.test("a list comes whole and in order, whatever sizes its objects have, and no page is too large", async () => {
  const small = (count: number) => Array.from({ length: count }, () => 5_000);
  for (
    const sizes of [
      [],
      small(1_000),
      Array.from({ length: 100 }, () => 1.4 * MEGABYTE),
      [...small(300), ...Array.from({ length: 40 }, () => 1.4 * MEGABYTE), ...small(300)],
      Array.from({ length: 200 }, (_, index) => index % 20 === 19 ? 9 * MEGABYTE : 1_000),
    ]
  ) {
    const server = new SizedList(sizes);
    deepStrictEqual(await server.read(), sizes.map((_, index) => index));
    ok(server.largest <= MAX_PAGE_BYTES || server.largest === 9 * MEGABYTE, `${server.largest}`);
    ok(server.refused <= 60, `${server.refused} pages of ${server.asked} were too large`);
  }
});

Deno.test("what is like a usual cluster is read in few pages, and none is asked for twice", async () => {
  const server = new SizedList(Array.from({ length: 5_000 }, () => 10_000));
  await server.read();
  deepStrictEqual([server.refused, server.asked < 25], [0, true]);
});

Deno.test("one object that is too large, and a token that is too old, end the list with their error", async () => {
  await rejects(new SizedList([1_000, MAX_OBJECT_BYTES + 1]).read(), TooLarge);
  const old = new SizedList(Array.from({ length: 20 }, () => 1.4 * MEGABYTE));
  old.expiresAt = 10;
  await rejects(old.read(), { status: 410 });
});

Deno.test("a hundred objects of 1.3 MB are listed in little memory, and without a warning", async () => {
  const said: LogRecord[] = [];
  await using server = await ApiServer.start({ history: 1 });
  const large = {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { namespace: "default", name: "" },
    data: { text: "x".repeat(1.3 * MEGABYTE) },
  };
  await server.seedCopies(large, Array.from({ length: 100 }, (_, index) => `large-${index}`));
  const account = await server.user("reader", ["system:masters"]);
  using api = new KubernetesApi({
    server: server.url,
    certificateAuthority: server.ca,
    token: tokenFile(account.tokenFile),
  });
  await configure({
    reset: true,
    sinks: { said: (record) => void said.push(record) },
    loggers: [
      { category: "kube-gateway", sinks: ["said"], lowestLevel: "info" },
      { category: ["logtape", "meta"], sinks: [] },
    ],
  });
  let count = 0;
  const before = residentKilobytes(Deno.pid);
  Deno.writeTextFileSync("/proc/self/clear_refs", "5"); // proc(5): the peak begins anew
  const list = watchList(api, {
    name: "config maps",
    path: PATH,
    read: () => true,
    onChange: ({ size }) => count = size,
  });
  await list.synced;
  const took = peakKilobytes(Deno.pid) - before;
  await list.close();
  await reset();
  strictEqual(count, 100);
  ok(took < 128 * 1024, `it took ${took} kB`);
  deepStrictEqual(said.map(({ level }) => level), ["info"]);
});

/** A list whose objects have these sizes; an object is its number. */
class SizedList {
  asked = 0;
  refused = 0;
  /** The largest page that was read whole. */
  largest = 0;
  /** From this object on the token is too old. */
  expiresAt = Infinity;

  constructor(private readonly sizes: readonly number[]) {}

  async read(): Promise<unknown[]> {
    const all: unknown[] = [];
    const { signal } = new AbortController();
    for await (const { items } of readPages(this, { path: PATH, signal })) all.push(...items);
    return all;
  }

  // deno-lint-ignore require-await -- as the client's
  async request(_method: string, _path: string, options: RequestOptions = {}): Promise<unknown> {
    const { query = {}, maxBytes = Infinity, onLength } = options;
    this.asked++;
    const from = Number(query.continue ?? 0);
    if (from >= this.expiresAt) throw new ApiError(410, "Expired", "too old");
    const page = this.sizes.slice(from, from + Number(query.limit));
    const length = page.reduce((sum, size) => sum + size, 0);
    if (length > maxBytes) {
      this.refused++;
      throw new TooLarge("too large");
    }
    onLength?.(length);
    this.largest = Math.max(this.largest, length);
    const next = from + page.length;
    return {
      metadata: {
        resourceVersion: "1",
        ...(next < this.sizes.length ? { continue: String(next) } : {}),
      },
      items: page.map((_, index) => from + index),
    };
  }
}
