import { deepStrictEqual, ok } from "node:assert/strict";
import { until } from "../../tests/lab/delay.ts";
import { type ProbeSources, serveProbes } from "./probes.ts";

const WELL: ProbeSources = {
  sick: () => Promise.resolve(undefined),
  notReady: () => undefined,
  metrics: () => Promise.resolve({ contentType: "text/x", text: "a 1\n" }),
};

/** Each path's status and text. */
async function answers(change: Partial<ProbeSources>): Promise<Record<string, [number, string]>> {
  const sources = { ...WELL, ...change };
  using server = serveProbes({ hostname: "127.0.0.1", port: 0 }, sources);
  const { port } = server.listener.addr as Deno.NetAddr;
  const found: Record<string, [number, string]> = {};
  for (const path of ["healthz", "readyz", "metrics"]) {
    const response = await fetch(`http://127.0.0.1:${port}/${path}`);
    found[path] = [response.status, await response.text()];
  }
  return found;
}

Deno.test("an agent that is well and ready says so, and has metrics", async () => {
  deepStrictEqual(await answers({}), {
    healthz: [200, "ok\n"],
    readyz: [200, "ok\n"],
    metrics: [200, "a 1\n"],
  });
});

Deno.test("what is wrong is said with a status that kubelet takes for a no, and only of what it is", async () => {
  deepStrictEqual(await answers({ sick: () => Promise.resolve("a worker hangs") }), {
    healthz: [503, "a worker hangs\n"],
    readyz: [200, "ok\n"],
    metrics: [200, "a 1\n"],
  });
  deepStrictEqual(await answers({ notReady: () => "not all tried" }), {
    healthz: [200, "ok\n"],
    readyz: [503, "not all tried\n"],
    metrics: [200, "a 1\n"],
  });
});

Deno.test("who stands by has no metrics, and is no less well for it", async () => {
  deepStrictEqual(await answers({ metrics: () => Promise.resolve(undefined) }), {
    healthz: [200, "ok\n"],
    readyz: [200, "ok\n"],
    metrics: [503, "standing by for another agent\n"],
  });
});

Deno.test("many who ask at once cost one answer, and who asks later has a new one", async () => {
  let asked = 0;
  const metrics = async () => {
    asked++;
    await new Promise((resolve) => setTimeout(resolve, 20));
    return { contentType: "text/x", text: `a ${asked}\n` };
  };
  using server = serveProbes({ hostname: "127.0.0.1", port: 0 }, { ...WELL, metrics });
  const { port } = server.listener.addr as Deno.NetAddr;
  const scrape = async () => await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  const texts = await Promise.all(Array.from({ length: 50 }, scrape));
  ok(asked <= 2, `made ${asked} times`);
  deepStrictEqual(new Set(texts).size, asked);
  await until(async () => await scrape() === `a ${asked}\n` && asked > 2, 10_000, () => `${asked}`);
});
