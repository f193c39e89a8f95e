import assert from "node:assert/strict";
import { delay, until } from "../delay.ts";
import { ApiServer } from "./controller.ts";

const WATCH = "/api/v1/namespaces/default/configmaps?watch=1";

Deno.test("a watch is over when its client is gone, also when nothing happens", async () => {
  await using server = await ApiServer.start();
  const leave = new AbortController();
  const gone = watch(server, leave.signal).catch(() => "gone");
  await until(() => hasWatch(server), 5_000, () => "there is no watch");
  leave.abort();
  await gone;
  await until(async () => !await hasWatch(server), 2_000, () => "the watch is still counted");
});

Deno.test("what two stalls hold back passes after one resume", async () => {
  await using server = await ApiServer.start();
  let heard = "";
  void watch(server).then((text) => heard = text, (error) => heard = String(error));
  await until(() => hasWatch(server), 5_000, () => "there is no watch");
  await server.stallConnections();
  await server.apply({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "held-back" } });
  await delay(200);
  assert.equal(heard, "");
  await server.stallConnections();
  await server.resumeConnections();
  await until(() => heard !== "", 3_000, () => "nothing passes");
  assert.match(heard, /"name":"held-back"/);
});

async function hasWatch(server: ApiServer): Promise<boolean> {
  return (await server.state()).watches.length === 1;
}

/** Resolves with what a watch says first. */
async function watch(server: ApiServer, signal?: AbortSignal): Promise<string> {
  const { token } = await server.user("reader", ["system:masters"]);
  using client = Deno.createHttpClient({ caCerts: [server.ca] });
  const headers = { authorization: `Bearer ${token}` };
  const { body } = await fetch(`${server.url}${WATCH}`, { client, headers, signal });
  assert(body);
  for await (const chunk of body) return new TextDecoder().decode(chunk);
  return "the end";
}
