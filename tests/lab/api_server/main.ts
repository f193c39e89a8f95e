/**
 * The API server for tests, a process of its own. In the order of a request: front.ts
 * (connections), gate.ts (who asks, misbehaviour), api.ts (what for, RBAC), operations.ts (writes),
 * lists.ts and watch.ts (reads), store.ts.
 *
 *   deno run -A main.ts --listen HOST:PORT --directory DIR
 *
 * DIR holds server.crt, server.key, tokens.json, state.jsonl and admin.sock; controller.ts makes
 * them.
 */
import { parseArgs } from "node:util";
import { serveAdmin } from "./admin.ts";
import type { Admission } from "./admission.ts";
import { Api } from "./api.ts";
import { Front } from "./front.ts";
import { Gate } from "./gate.ts";
import { Operations } from "./operations.ts";
import { Authorizer } from "./rbac.ts";
import { serveHttps } from "./https.ts";
import { findResource } from "./resources.ts";
import { Store } from "./store.ts";
import { Tokens } from "./users.ts";

const { values } = parseArgs({
  options: {
    listen: { type: "string", default: "127.0.0.1:0" },
    directory: { type: "string", default: "." },
    "bookmark-ms": { type: "string", default: "60000" },
    history: { type: "string", default: "10000" },
    admission: { type: "string" },
    "until-stdin-ends": { type: "boolean", default: false },
  },
});
const { directory } = values;
const store = new Store(`${directory}/state.jsonl`, Number(values.history));
const admission = values.admission === undefined
  ? undefined
  : (await import(values.admission) as { default: Admission }).default;
const operations = new Operations(store, admission);
const api = new Api(operations, new Authorizer(store), Number(values["bookmark-ms"]));
const gate = new Gate(api, new Tokens(`${directory}/tokens.json`, store));
makeNamespaces();

const httpsPort = await serveHttps({
  cert: Deno.readTextFileSync(`${directory}/server.crt`),
  key: Deno.readTextFileSync(`${directory}/server.key`),
}, (request) => gate.handle(request));
const [, hostname = "", port] = /^\[?(.*?)\]?:(\d+)$/.exec(values.listen) ?? [];
const front = new Front(hostname, Number(port), httpsPort);
serveAdmin(`${directory}/admin.sock`, { api, gate, front, operations });
console.log(JSON.stringify({ event: "listening", port: front.port }));

if (values["until-stdin-ends"]) {
  for await (
    const _ of Deno.stdin.readable
  ) { /* Only its end counts: whoever started this is gone. */ }
  Deno.exit(0);
}

function makeNamespaces(): void {
  const resource = findResource("", "v1", "namespaces");
  const user = { username: "system:apiserver", groups: ["system:masters"] };
  for (const name of ["default", "kube-system", "kube-public", "kube-node-lease"]) {
    if (store.get(resource, "", name)) continue;
    const target = { resource, namespace: "", name, subresource: "", user };
    operations.create(target, { metadata: { name } });
  }
}
