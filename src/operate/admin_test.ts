import { deepStrictEqual, rejects, strictEqual, throws } from "node:assert/strict";
import { until } from "../../tests/lab/delay.ts";
import { HeldTimers } from "../timers_for_tests.ts";
import { askConnections, askStatus, serveAdmin } from "./admin.ts";
import type { AgentConnections } from "./connections.ts";
import type { AgentStatus } from "./status.ts";

/** What Deno's fetch follows, also away from a unix socket. */
const PROXY_VARIABLES = {
  NO_PROXY: "localhost",
  no_proxy: "*",
  HTTP_PROXY: "http://127.0.0.1:9",
  http_proxy: "http://127.0.0.1:9",
  ALL_PROXY: "http://127.0.0.1:9",
};

for (const [name, value] of Object.entries(PROXY_VARIABLES)) {
  Deno.test(`an agent is asked on its socket whatever ${name} says`, () =>
    withPath(async (path) => {
      const before = Deno.env.get(name);
      Deno.env.set(name, value);
      try {
        using _admin = serve(path, "node-a");
        strictEqual((await askStatus(path)).node, "node-a");
        deepStrictEqual(await askConnections(path), { node: "node-a", count: 0, connections: [] });
      } finally {
        if (before === undefined) Deno.env.delete(name);
        else Deno.env.set(name, before);
      }
    }));
}

Deno.test("the socket is root's alone, and gone with its agent", () =>
  withPath((path) => {
    {
      using _admin = serve(path, "node-a");
      strictEqual((Deno.lstatSync(path).mode ?? 0) & 0o777, 0o600);
      deepStrictEqual(names(path), ["admin.sock"]);
    }
    deepStrictEqual(names(path), []);
  }));

Deno.test("who asks is told what is wrong", () =>
  withPath(async (path) => {
    await rejects(askStatus(path), /no agent answers on .*admin.sock: is it running on this node/);
    const crashed = serve(path, "node-a");
    const left = `${path}.left`;
    Deno.linkSync(path, left);
    crashed[Symbol.dispose]();
    Deno.renameSync(left, path);
    await rejects(askStatus(path), /no agent answers on/);
    throws(() => serve(`${path}/below`, "node-a"), /cannot make the admin socket .*below: /);

    using _broken = serve(path, new Error("a worker hangs"));
    await rejects(askStatus(path), /the agent on .* answered 500: a worker hangs/);
  }));

Deno.test("what is no agent is not taken for one", () =>
  withPath(async (path) => {
    using listener = Deno.listen({ transport: "unix", path });
    const asked = rejects(askStatus(path), /the agent on .* does not answer: /);
    {
      using client = await listener.accept();
      await client.write(new TextEncoder().encode("SSH-2.0-x\r\n"));
    }
    await asked;
  }));

Deno.test("a socket that was removed or replaced is served again", () =>
  withPath(async (path) => {
    using _admin = serve(path, "node-a");
    const answers = async () => (await askStatus(path).catch(() => undefined))?.node;
    const isBack = () =>
      until(async () => await answers() === "node-a", 10_000, () => "not served again");
    Deno.removeSync(path);
    await isBack();
    Deno.removeSync(path);
    Deno.writeTextFileSync(path, "a file");
    await isBack();
  }));

Deno.test("an agent that ends removes no socket but its own", () =>
  withPath((path) => {
    const admin = serve(path, "node-a");
    Deno.removeSync(path);
    Deno.writeTextFileSync(path, "another's");
    admin[Symbol.dispose]();
    strictEqual(Deno.readTextFileSync(path), "another's");
  }));

Deno.test("an agent that hangs, before its answer or in it, is not waited for longer than 10 s", () =>
  withPath(async (path) => {
    // The larger one is only taken whole by who has read its head.
    const begun = `HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n${" ".repeat(4 << 20)}`;
    for (const part of ["", begun]) {
      using timers = new HeldTimers(10_000);
      using listener = Deno.listen({ transport: "unix", path });
      const asked = rejects(askStatus(path), /the agent on .* does not answer: no answer for 10 s/);
      using client = await listener.accept();
      await client.read(new Uint8Array(1_000)); // the request is there
      const bytes = new TextEncoder().encode(part);
      for (let sent = 0; sent < bytes.length;) sent += await client.write(bytes.subarray(sent));
      strictEqual(timers.pending(10_000), 1);
      timers.end(10_000);
      client.close();
      await asked;
    }
  }));

Deno.test("who was answered, or could not ask, waits for nothing more", () =>
  withPath(async (path) => {
    using timers = new HeldTimers(10_000);
    await rejects(askStatus(path), /no agent answers on/);
    strictEqual(timers.pending(10_000), 0, "the command would not end before");
    using _admin = serve(path, "node-a");
    strictEqual((await askStatus(path)).node, "node-a");
    strictEqual(timers.pending(10_000), 0);
  }));

Deno.test("an agent that has ended makes no socket again", () =>
  withPath((path) => {
    using timers = new HeldTimers(2_000);
    const admin = serve(path, "node-a");
    strictEqual(timers.pending(2_000), 1);
    admin[Symbol.dispose]();
    timers.end(2_000);
    deepStrictEqual([names(path), timers.pending(2_000)], [[], 0]);
  }));

function serve(path: string, answer: string | Error) {
  const status = () =>
    answer instanceof Error
      ? Promise.reject(answer)
      : Promise.resolve({ node: answer } as unknown as AgentStatus);
  return serveAdmin(path, {
    "/status": status,
    "/audit": () => Promise.reject(new Error("not asked")),
    "/connections": () =>
      Promise.resolve<AgentConnections>({ node: `${answer}`, count: 0, connections: [] }),
  });
}

async function withPath(use: (path: string) => void | Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await use(`${directory}/admin.sock`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function names(path: string): string[] {
  return [...Deno.readDirSync(path.slice(0, path.lastIndexOf("/")))].map(({ name }) => name);
}
