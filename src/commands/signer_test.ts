import { match, strictEqual } from "node:assert/strict";
import { apiOf, fileRequest, openScene, requestBody, until } from "../signer/signer_scene.ts";
import { COMMANDS } from "./options.ts";
import { serveSigner } from "./signer.ts";

Deno.test("the command signs, tells probes how it is, and gives the lease back", async () => {
  await using server = openScene();
  const port = freePort();
  const stop = Promise.withResolvers<void>();
  const defaults = Object.fromEntries(
    Object.entries(COMMANDS.signer.options).flatMap(([name, spec]) =>
      "default" in spec ? [[name, spec.default]] : []
    ),
  );
  const options = { ...defaults, "health-address": `127.0.0.1:${port}` };
  let secretsFail = true;
  server.intercept = (_request, path) =>
    secretsFail && path.includes("/secrets/") ? new Response(null, { status: 503 }) : undefined;
  const running = serveSigner(options, apiOf(server, "signer"), stop.promise);
  const probe = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    return `${response.status} ${await response.text()}`;
  };
  await until("the CA was asked for", () => server.requests.length > 0);
  match(await probe("/healthz"), /^200 ok/);
  match(await probe("/readyz"), /^503 /);
  secretsFail = false;
  const request = await fileRequest(server, "agent-a", await requestBody());
  match(request?.status?.certificate ?? "", /^LS0t/);
  match(await probe("/readyz"), /^200 ok/);
  match(await probe("/metrics"), /^404/);
  stop.resolve();
  await running;
  const lease = [...server.objects].find(([path]) => path.includes("/leases/"))?.[1];
  strictEqual(lease?.spec?.holderIdentity, "");
});

Deno.test("options that make no sense are refused", () => {
  for (
    const [name, good, bad] of [
      ["signer-name", ["kube-gateway.io/pod", "a.b/c.d"], [
        "pod",
        "a/b",
        "a.b/",
        "a.b/C",
        "a.b/c/d",
      ]],
      ["cert-ttl", ["10", "2592000"], ["9", "2592001", "1e3", ""]],
      ["health-address", [":8080", "[::]:1"], ["8080", "a:65536"]],
      ["agent-service-account", ["a.b"], ["a:b", ""]],
      ["trust-domain", ["cluster.local"], ["A", ""]],
    ] as const
  ) {
    const { check } = COMMANDS.signer.options[name];
    for (const value of good) strictEqual(check(value), undefined, `${name} ${value}`);
    for (const value of bad) strictEqual(typeof check(value), "string", `${name} ${value}`);
  }
});

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
