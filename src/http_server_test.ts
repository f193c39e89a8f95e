import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { until } from "../tests/lab/delay.ts";
import { type Answer, type Answers, HttpServer, MOST_CONNECTIONS } from "./http_server.ts";
import { HeldTimers } from "./timers_for_tests.ts";

const ANSWERS: Answers = {
  "/hello": () => ({ text: "here" }),
  "/json": () => Promise.resolve({ status: 503, contentType: "application/json", text: "{}" }),
  "/broken": () => {
    throw new Error("broken");
  },
  "/large": () => ({ text: "x".repeat(8 << 20) }),
};

Deno.test("each path has its answer, and what is no path or no GET has none", async () => {
  using server = open();
  const base = `http://127.0.0.1:${server.port}`;
  for (
    const [path, init, expected] of [
      ["/hello", {}, [200, "text/plain; charset=utf-8", "here"]],
      ["/hello?since=1", {}, [200, "text/plain; charset=utf-8", "here"]],
      ["/json", {}, [503, "application/json", "{}"]],
      ["/broken", {}, [500, "text/plain; charset=utf-8", "broken\n"]],
      ["/", {}, [404, "text/plain; charset=utf-8", "not found\n"]],
      ["/constructor", {}, [404, "text/plain; charset=utf-8", "not found\n"]],
      ["/hello", { method: "DELETE" }, [405, "text/plain; charset=utf-8", "only GET\n"]],
    ] as const
  ) {
    const response = await fetch(base + path, init);
    const { status, headers } = response;
    deepStrictEqual([status, headers.get("content-type"), await response.text()], expected, path);
  }
  strictEqual((await (await fetch(`${base}/large`)).text()).length, 8 << 20);
});

Deno.test("requests in parts, of another form, and no requests at all", async () => {
  using server = open();
  for (
    const [parts, answer] of [
      [
        ["GET /hel", "lo HTTP/1.1\r\nHost: a\r", "\n\r", "\n"],
        /^HTTP\/1.1 200 OK\r\n[^]*\r\n\r\nhere$/,
      ],
      [["GET http://other/hello HTTP/1.0\r\n\r\n"], /^HTTP\/1.1 200 OK\r\n[^]*here$/],
      [["GET http:// HTTP/1.1\r\n\r\n"], /^HTTP\/1.1 400 /],
      [["\x16\x03\x01\r\n\r\n"], /^HTTP\/1.1 400 /],
      [["GET /hello HTTP/2\r\n\r\n"], /^HTTP\/1.1 400 /],
      [[`GET /hello HTTP/1.1\r\nA: ${"a".repeat(9_000)}\r\n\r\n`], /^$/],
    ] as const
  ) {
    using client = await connect(server.port);
    for (const part of parts) {
      await client.write(new TextEncoder().encode(part));
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    match(await readAll(client), answer, parts.join(""));
  }
});

Deno.test("whoever has most connections makes room for others", async () => {
  const listener = Deno.listen({ hostname: "::", port: 0 });
  const ended: string[] = [];
  using server = new HttpServer(listener, {
    "/never": () => new Promise(() => {}),
    "/hello": () => ({ text: "here" }),
  });
  const { port } = server.listener.addr as Deno.NetAddr;
  const ask = async (hostname: string) => {
    const client = await Deno.connect({ hostname, port });
    await client.write(new TextEncoder().encode("GET /never HTTP/1.1\r\n\r\n"));
    void readAll(client).then(() => ended.push(hostname), () => {});
    return client;
  };
  const first = await ask("127.0.0.1"); // the oldest of all
  const others: Deno.Conn[] = [];
  for (let count = 0; count < MOST_CONNECTIONS; count++) others.push(await ask("::1"));
  await until(() => ended.length > 0, 5_000, () => "nobody was cut off");
  strictEqual(await hello(port), "here");
  ok(!ended.includes("127.0.0.1"));
  for (const client of [first, ...others]) client.close();
});

Deno.test("who connects and says nothing keeps nobody out, and is cut off", async () => {
  using server = open();
  const idle: Deno.Conn[] = [];
  for (let count = 0; count < 1.5 * MOST_CONNECTIONS; count++) {
    idle.push(await connect(server.port));
  }
  strictEqual(await hello(server.port), "here");
  const began = performance.now();
  const ends = await Promise.all(idle.map(async (client) => {
    await readAll(client);
    return performance.now() - began;
  }));
  for (const client of idle) client.close();
  const waited = ends.filter((end) => end > 3_000);
  ok(
    waited.length >= 0.9 * MOST_CONNECTIONS - 1 && waited.length <= MOST_CONNECTIONS,
    `${waited.length}`,
  );
  ok(Math.max(...ends) < 8_000, `${Math.max(...ends)}`);
});

Deno.test("whose answer takes a while is not the one who makes room", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { promise, resolve } = Promise.withResolvers<Answer>();
  const asked = Promise.withResolvers<void>();
  const answer = () => {
    asked.resolve();
    return promise;
  };
  using _server = new HttpServer(listener, { "/slow": answer, "/hello": () => ({ text: "here" }) });
  const slow = fetch(`http://127.0.0.1:${listener.addr.port}/slow`);
  await asked.promise;
  const idle: Deno.Conn[] = [];
  for (let count = 0; count < 1.5 * MOST_CONNECTIONS; count++) {
    idle.push(await connect(listener.addr.port));
  }
  strictEqual(await hello(listener.addr.port), "here");
  resolve({ text: "late" });
  strictEqual(await (await slow).text(), "late");
  for (const client of idle) client.close();
});

Deno.test("who asks nothing has 5 s, an answer has 60 s, and who was answered waits for neither", async () => {
  using timers = new HeldTimers(5_000, 60_000);
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const never = new Promise<Answer>(() => {});
  using _server = new HttpServer(listener, { ...ANSWERS, "/never": () => never });
  const { port } = listener.addr;
  const pending = () => [timers.pending(5_000), timers.pending(60_000)].join();
  const waits = (expected: string) =>
    until(() => pending() === expected, 10_000, () => `${pending()}, not ${expected}`);
  const read = (client: Deno.Conn) =>
    Promise.race([readAll(client), new Promise((done) => setTimeout(done, 3_000, "still open"))]);
  using silent = await connect(port);
  await waits("1,0");
  timers.end(5_000);
  strictEqual(await read(silent), "");
  strictEqual(pending(), "0,0");

  using client = await connect(port);
  await client.write(new TextEncoder().encode("GET /never HTTP/1.1\r\n\r\n"));
  await waits("0,1");
  strictEqual(await hello(port), "here");
  await waits("0,1");
  timers.end(60_000);
  strictEqual(await read(client), "");
});

Deno.test("a server without a descriptor left goes on when it has one", async () => {
  // A process of its own: fewer descriptors than a server takes connections, and none left for the
  // rest of it.
  const program = `
    const { HttpServer } = await import(${JSON.stringify(import.meta.resolve("./http_server.ts"))});
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    new HttpServer(listener, { "/hello": () => ({ text: "here" }) });
    Deno.addSignalListener("SIGUSR1", () => {}); // what this needs, Deno opens at the first one
    console.log(listener.addr.port);
    const others = [];
    const count = () => [...Deno.readDirSync("/proc/self/fd")].length;
    const atRest = count();
    for await (const part of Deno.stdin.readable) {
      if (part[0] === 102) { // f: fill up, when nobody is connected
        while (count() > atRest) await new Promise((resolve) => setTimeout(resolve, 10));
        try { for (;;) others.push(Deno.openSync("/dev/null")); } catch { console.log("full"); }
      } else for (const file of others.splice(0)) file.close();
    }`;
  await using child = new Deno.Command("sh", {
    args: ["-c", 'ulimit -n 80; exec "$0" eval "$1"', Deno.execPath(), program],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const output = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const input = child.stdin.getWriter();
  const port = Number((await output.read()).value);
  const idle: Deno.Conn[] = [];
  for (let count = 0; count < 200; count++) idle.push(await connect(port));
  strictEqual(await hello(port), "here", "the oldest make room");
  for (const client of idle) client.close();

  await input.write(new TextEncoder().encode("fill"));
  match((await output.read()).value ?? "", /full/);
  const waiting = hello(port);
  const early = await Promise.race([waiting, new Promise((done) => setTimeout(done, 500, "none"))]);
  strictEqual(early, "none", "it had a descriptor all the same");
  await input.write(new TextEncoder().encode("empty"));
  strictEqual(await waiting, "here");
  await input.close();
  await output.cancel();
});

function open(): HttpServer & { readonly port: number } {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return Object.assign(new HttpServer(listener, ANSWERS), { port: listener.addr.port });
}

function connect(port: number): Promise<Deno.Conn> {
  return Deno.connect({ hostname: "127.0.0.1", port });
}

async function hello(port: number): Promise<string> {
  return await (await fetch(`http://127.0.0.1:${port}/hello`)).text();
}

/** What comes until the server ends; a reset is an end, too. */
async function readAll(client: Deno.Conn): Promise<string> {
  const bytes = new Uint8Array(4_096);
  let text = "";
  try {
    for (let count; (count = await client.read(bytes)) !== null;) {
      text += new TextDecoder().decode(bytes.subarray(0, count));
    }
  } catch {
    // Reset.
  }
  return text;
}
