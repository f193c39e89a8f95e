/**
 * The promise: what the agent does with a directory it does with an API server: annotate and it is
 * encrypted, take the annotation away and it is plain; and Kubernetes itself says which it is.
 */
import assert from "node:assert/strict";
import type { CaptureResult } from "./lab/capture.ts";
import { delay, until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";
import type { Pod } from "./lab/pod.ts";
import { WORD_ANNOTATION } from "../src/identity/signer_word.ts";

const PORT = 9000;
const CANARY = "canary-9d1e-canary";
const SLICES = "discovery.k8s.io/endpointslices";

Deno.test("two agents and a signer on an API server", async (t) => {
  await using lab = await Lab.open({ cluster: "api" });
  const [web, api, host] = await lab.addPods([
    { name: "web", node: "node-a", namespace: "shop" },
    { name: "api", node: "node-b", namespace: "shop" },
    { name: "host", node: "node-a", namespace: "shop", hostNetwork: true },
  ]);
  assert(web && api && host);
  const signer = await lab.startSigner();
  const agents = await Promise.all(
    lab.nodes.map(({ name }) =>
      lab.startAgent(name, { args: ["--metrics-address", "127.0.0.1:8080"] })
    ),
  );
  await api.serve("echo", PORT);

  await t.step("in clear before", async () => {
    assert((await conversation(lab, web, api)).contains(CANARY) > 0);
  });

  await t.step("annotated, it is encrypted, and both pods are said to be Secured", async () => {
    for (const pod of [web, api]) await pod.annotate("true");
    for (const pod of [web, api]) await lab.waitEnrolled(pod);
    assert.equal((await conversation(lab, web, api)).contains(CANARY), 0);
    await waitSecured(lab, web, "True", "Enrolled", /ns\/shop\/sa\/web at 10\.77\.1\.\d+, fd77/);
    await waitSecured(lab, api, "True", "Enrolled", /ns\/shop\/sa\/api/);
    await waitEvents(lab, web, ["Enrolled"]);
  });

  await t.step("the registry is each node's own slices, owned by its Node", async () => {
    const slices = await lab.api.server.list<Slice>(SLICES, "kube-gateway");
    assert.deepEqual(slices.map(({ metadata: { name } }) => name).sort(), [
      "registry-node-a-ipv4-0",
      "registry-node-a-ipv6-0",
      "registry-node-b-ipv4-0",
      "registry-node-b-ipv6-0",
    ]);
    for (const { metadata: { labels, ownerReferences } } of slices) {
      const node = labels["kube-gateway.io/registry-node"];
      assert.deepEqual(ownerReferences?.map(({ kind, name }) => [kind, name]), [["Node", node]]);
    }
  });

  await t.step(
    "somebody's change of the registry is healed, and nothing else is written",
    async () => {
      const name = "registry-node-b-ipv4-0";
      const of = { resource: SLICES, namespace: "kube-gateway", name };
      const requests = () => lab.api.server.requests({ path: /registry-node-b/ });
      const { length: before } = await requests();
      await lab.api.server.patch(of, { endpoints: [] });
      await until(
        async () => (await lab.api.server.get<Slice>(of)).endpoints?.length === 1,
        5_000,
        () => "the slice stays as somebody has left it",
      );
      await lab.waitEnrolled(api);
      const writes = (await requests()).slice(before);
      const own = writes.filter(({ user, verb }) => user.endsWith("-agent") && verb !== "get");
      assert.deepEqual(own.map(({ verb, status }) => [verb, status]), [["patch", 200]]);
    },
  );

  await t.step(
    "a Node that is deleted and made again keeps its registry, which it owns",
    async () => {
      const since = Date.now();
      const node = lab.node("node-b");
      await lab.api.server.delete({ resource: "nodes", name: "node-b" });
      const owners = async () => {
        const slices = await lab.api.server.list<Slice>(SLICES, "kube-gateway");
        const own = slices.filter(({ metadata: { name } }) => name.startsWith("registry-node-b"));
        return own.map(({ metadata }) => metadata.ownerReferences?.[0]?.uid ?? "none").join();
      };
      let last = "";
      const become = (wanted: string, milliseconds: number) =>
        until(
          async () => (last = await owners()) === wanted,
          milliseconds,
          () => `the owners of node-b's slices are ${last}`,
        );
      await become("none,none", 5_000);
      await lab.api.addNode(node);
      const { metadata: { uid } } = await lab.api.server.get<Slice>({
        resource: "nodes",
        name: "node-b",
      });
      // A Node that is not there is looked for every ten seconds.
      await become(`${uid},${uid}`, 15_000);
      await lab.waitEnrolled(api);
      await waitSecured(lab, api, "True", "Enrolled", /./);
      const writes = await lab.api.server.requests({
        path: /registry-node-b|endpointslices$/,
        since,
      });
      const own = writes.filter(({ user, verb }) =>
        user.endsWith("-agent") && ["create", "patch", "delete"].includes(verb)
      );
      assert(own.length <= 8, `${own.length} writes: ${JSON.stringify(own)}`);
      // At once: what the old Node's UID owns is collected, and made again with the new one.
      await lab.api.server.delete({ resource: "nodes", name: "node-b" });
      await lab.api.addNode(node);
      const again = await lab.api.server.get<Slice>({ resource: "nodes", name: "node-b" });
      await become(`${again.metadata.uid},${again.metadata.uid}`, 15_000);
      await lab.waitEnrolled(api);
    },
  );

  await t.step("a pod that cannot be enrolled is refused, with the reason", async () => {
    await host.annotate("true");
    await waitSecured(lab, host, "False", "Refused", /hostNetwork/);
    await waitEvents(lab, host, ["Refused"]);
    await host.annotate(undefined);
    await waitSecured(lab, host, "False", "NotEnrolled", /not encrypted/);
  });

  await t.step("probes and metrics", async () => {
    const get = async (path: string) => {
      const url = `http://127.0.0.1:8080${path}`;
      const { stdout } = await lab.node("node-a").run([...CURL, url]);
      return stdout;
    };
    assert.equal((await get("/healthz")).trim(), "200 ok");
    assert.equal((await get("/readyz")).trim(), "200 ok");
    const metrics = await get("/metrics");
    for (
      const line of [
        /^kube_gateway_enrolments\{state="active"\} 1$/m,
        /^kube_gateway_peers 4$/m,
        /^kube_gateway_handshakes_total\{group="X25519[A-Z0-9]*"\} [1-9]/m,
        /^kube_gateway_streams_total [1-9]/m,
        /^kube_gateway_bytes_total\{direction="sent"\} [1-9]/m,
        /^kube_gateway_api_server_silence_seconds \d+$/m,
        /^kube_gateway_certificate_soonest_expiry_seconds 8\d{4}/m,
      ]
    ) assert.match(metrics, line);
  });

  await t.step("un-annotated, it is in clear again, and said so", async () => {
    for (const pod of [web, api]) await pod.annotate(undefined);
    for (const pod of [web, api]) await lab.waitPlain(pod);
    assert((await conversation(lab, web, api)).contains(CANARY) > 0);
    await waitSecured(lab, web, "False", "NotEnrolled", /annotation/);
    await waitEvents(lab, web, ["Enrolled", "NotEnrolled"]);
    const slices = await lab.api.server.list<Slice>(SLICES, "kube-gateway");
    assert.deepEqual(slices.flatMap(({ endpoints }) => endpoints ?? []), [], "nobody is left");
    assert(slices.length > 0, "what is there and empty says so");
  });

  await t.step("a namespace's annotation enrols its pods; a pod's own wins", async () => {
    await web.annotate("false");
    await lab.api.annotateNamespace("shop", "kube-gateway.io", "true");
    await lab.waitEnrolled(api);
    await waitSecured(lab, host, "False", "Refused", /hostNetwork/);
    const { enrolments } = await lab.agent("node-a").status();
    assert.deepEqual(enrolments.filter(({ state }) => state === "active"), []);
    await web.annotate(undefined);
    await lab.waitEnrolled(web);
    assert.equal((await conversation(lab, web, api)).contains(CANARY), 0);
    await lab.api.annotateNamespace("shop", "kube-gateway.io", undefined);
    for (const pod of [web, api]) await lab.waitPlain(pod);
  });

  await t.step("what could not be said at once is said later", async () => {
    await waitSecured(lab, web, "False", "NotEnrolled", /./);
    await using _wrong = await lab.api.server.misbehave({
      verb: "patch",
      path: "pods/web/status",
      status: 503,
      times: 1,
    });
    await web.annotate("true");
    await lab.waitEnrolled(web);
    await waitSecured(lab, web, "True", "Enrolled", /./, 10_000);
  });

  await t.step("a signer that is gone is missed long before a certificate is due", async () => {
    const bundle = {
      resource: "configmaps",
      namespace: "kube-gateway",
      name: "kube-gateway-trust-bundle",
    };
    await signer.stop();
    const { metadata } = await lab.api.server.get<Annotated>(bundle);
    const word = metadata.annotations?.[WORD_ANNOTATION] ?? "";
    assert.match(word, /"at":"2/);
    const past = word.replace(/"until":"[^"]*"/, `"until":${/"at":("[^"]*")/.exec(word)?.[1]}`);
    await lab.api.server.annotate(bundle, WORD_ANNOTATION, past);
    await waitSecured(lab, web, "True", "Enrolled", /no signer has been heard of/, 15_000);
    await lab.startSigner();
    await waitSecured(lab, web, "True", "Enrolled", /TLS 1.3$/, 60_000);
  });

  await t.step("agents that end take back what they said", async () => {
    for (const agent of agents) assert.equal(await agent.stop(), 0);
    await waitSecured(lab, web, "False", "NotEnrolled", /removed/);
    assert.deepEqual(await lab.api.server.list(SLICES, "kube-gateway"), []);
  });
});

Deno.test("a pod whose certificate is denied is held, says why, and is not asked for without end", async () => {
  await using lab = await Lab.open({ cluster: "api", nodes: ["node-a"] });
  const web = await lab.addPod({ name: "web", node: "node-a", annotation: "true" });
  await lab.startSigner();
  const kubeconfig = await lab.api.unboundAgentKubeconfig();
  const agent = await lab.startAgent("node-a", { args: ["--kubeconfig", kubeconfig] });
  await until(
    async () => /NoNodeClaim/.test((await agent.enrolment(web)).reason ?? ""),
    10_000,
    () => agent.logTail(),
  );
  await delay(5_000);
  // At 0, 1, 3, 7 s…; whoever asked at every look at the pod would have filed dozens by now.
  const requests = await lab.api.server.list("certificatesigningrequests");
  assert(requests.length >= 2 && requests.length <= 4, `${requests.length} requests`);
  const condition = await lab.api.secured(web);
  assert.equal(condition, undefined, "its pod's status is not that agent's to write");
});

interface Annotated {
  metadata: { annotations?: Record<string, string> };
}

interface Slice {
  metadata: {
    name: string;
    uid: string;
    labels: Record<string, string>;
    ownerReferences?: { kind: string; name: string; uid: string }[];
  };
  endpoints?: unknown[];
}

/** What a capture between the nodes sees of a conversation, in both families. */
async function conversation(lab: Lab, web: Pod, api: Pod): Promise<CaptureResult> {
  const capture = await lab.captureNodeLink("node-a");
  for (const address of api.addresses) {
    const { result } = await web.connect("echo", address, PORT, "--text", CANARY);
    assert.equal(result.reply, CANARY, lab.agent("node-a").logTail());
  }
  return await capture.stop();
}

async function waitSecured(
  lab: Lab,
  pod: Pod,
  status: string,
  reason: string,
  message: RegExp,
  milliseconds = 5_000,
): Promise<void> {
  let last: unknown;
  await until(
    async () => {
      const condition = await lab.api.secured(pod);
      last = condition;
      return condition?.status === status && condition.reason === reason &&
        message.test(condition.message);
    },
    milliseconds,
    () => `${pod.key} is not ${status}, ${reason}: ${JSON.stringify(last)}`,
  );
}

/** Waits for the reasons of a pod's Events, oldest first. */
async function waitEvents(lab: Lab, pod: Pod, wanted: string[]): Promise<void> {
  let reasons: string[] = [];
  await until(
    async () => {
      const events = await lab.api.server.list<
        { regarding: { uid: string }; reason: string; eventTime: string }
      >("events.k8s.io/events", pod.namespace);
      reasons = events.filter(({ regarding }) => regarding.uid === pod.uid)
        .sort((a, b) => a.eventTime < b.eventTime ? -1 : 1)
        .map(({ reason }) => reason);
      return reasons.join() === wanted.join();
    },
    5_000,
    () => `the Events of ${pod.key} are ${reasons}, not ${wanted}`,
  );
}

// Python's own HTTP client: it is in the lab anyway. Status and body.
const CURL = [
  "python3",
  "-c",
  "import sys, urllib.request as r\nanswer = r.urlopen(sys.argv[1])\n" +
  "print(answer.status, answer.read().decode())",
];
