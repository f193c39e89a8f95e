/**
 * The promise: a list that the agent may not read, while the API server answers everything else, is
 * named, and where it hides peers nothing goes in clear meanwhile.
 */
import assert from "node:assert/strict";
import { until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";
import type { Pod } from "./lab/pod.ts";
import { waitSecured } from "./lab/secured.ts";

const PORT = 9000;
const AGENTS = "system:serviceaccount:kube-gateway:kube-gateway-agent";
const REGISTRY = "/namespaces/kube-gateway/endpointslices";
const UNREAD_MILLISECONDS = 60_000;

Deno.test("a right is taken away from the agents", async (t) => {
  await using lab = await Lab.open({ cluster: "api" });
  const [web, api, plain] = await lab.addPods([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "api", node: "node-b", annotation: "true" },
    { name: "plain", node: "node-b" },
  ]);
  assert(web && api && plain);
  const { server } = lab.api;
  await lab.startSigner();
  await Promise.all(
    lab.nodes.map(({ name }) =>
      lab.startAgent(name, { args: ["--metrics-address", "127.0.0.1:8080"] })
    ),
  );
  for (const pod of [api, plain]) await pod.serve("hello", PORT);
  for (const pod of [web, api]) await waitSecured(lab, pod, "True");
  const reaches = async (pod: Pod) =>
    (await web.connect("who", pod.ipv4 ?? "", PORT, "--timeout", "2")).code === 0;
  const refuse = async (path: string) => {
    const refusals = await Promise.all(
      ["list", "watch"].map((verb) => server.misbehave({ user: AGENTS, verb, path, status: 403 })),
    );
    await server.disturbWatches({ do: "close", user: AGENTS });
    return async () => {
      for (const refusal of refusals) await refusal[Symbol.asyncDispose]();
    };
  };
  const untilUnread = (...lists: string[]) =>
    until(
      async () => {
        const { unreadLists } = await lab.agent("node-a").status();
        return JSON.stringify(unreadLists) === JSON.stringify(lists);
      },
      UNREAD_MILLISECONDS,
      () => `not unread: ${lists}`,
    );

  await t.step("the registry", async () => {
    assert.deepEqual([await reaches(api), await reaches(plain)], [true, true]);
    const allow = await refuse(REGISTRY);
    await untilUnread("registry");
    assert.deepEqual([await reaches(api), await reaches(plain)], [true, false]);
    const [late] = await lab.addPods([{ name: "late", node: "node-b", annotation: "true" }]);
    assert(late);
    await late.serve("hello", PORT);
    assert.equal(await reaches(late), false, "it would be in clear");
    const { problems } = await lab.agent("node-a").status();
    const [problem] = problems.filter(({ where }) => where === "registry");
    assert.match(problem?.message ?? "", /not been read since .* 403 .*peers/);
    const { stdout: metrics } = await lab.node("node-a").run([
      ...["curl", "-sS", "--max-time", "5", "http://127.0.0.1:8080/metrics"],
    ]);
    assert.match(metrics, /^kube_gateway_unread_lists 1$/m);
    await waitSecured(lab, web, "True", /registry: .*not been read since/);
    await allow();
    await untilUnread();
    await waitSecured(lab, late, "True");
    await until(() => reaches(plain), 10_000, () => "still refused");
    await until(() => reaches(late), 10_000, () => "still refused");
  });

  await t.step("the deny list", async () => {
    const allow = await refuse("/namespaces/kube-gateway/configmaps");
    await untilUnread("deny list");
    assert.deepEqual([await reaches(api), await reaches(plain)], [true, true]);
    await waitSecured(lab, web, "True", /deny list: .*Who has been denied/);
    await allow();
    await untilUnread();
  });
});
