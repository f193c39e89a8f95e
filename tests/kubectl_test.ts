/**
 * The promise: what README says to do with kubectl does what it says: apply, annotate, wait,
 * describe, and delete, after which no pod's status says Secured that is not.
 */
import assert from "node:assert/strict";
import { ApiServer, POLICIES } from "./lab/api_server/controller.ts";
import { until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";
import type { Place } from "./lab/place.ts";

const MANIFESTS = new URL("../daemonset/", import.meta.url).pathname;
const DELETE = ["delete", "--ignore-not-found", "--filename", MANIFESTS];

Deno.test("kubectl applies the manifests to an empty cluster in one go, and deletes them", async () => {
  await using server = await ApiServer.start({ admission: POLICIES });
  const { kubeconfig } = await server.user("kubernetes-admin", ["system:masters"]);
  const kubectl = async (...args: string[]) => {
    const argv = argvOf(kubeconfig, server.directory, args);
    const options = { args: argv.slice(1), stdout: "piped", stderr: "piped" } as const;
    const { code, stdout, stderr } = await new Deno.Command("kubectl", options).output();
    const text = new TextDecoder();
    return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
  };
  const apply = ["apply", "--validate=false", "--filename", MANIFESTS];
  const first = await kubectl(...apply);
  assert.equal(first.code, 0, first.stderr);
  assert.equal(first.stderr, "");
  assert.match(first.stdout, /daemonset\.apps\/kube-gateway-agent created/);
  const { resourceVersion } = await server.state();
  const second = await kubectl(...apply);
  assert.equal(second.code, 0, second.stderr);
  // kubectl's own word is not to be had: some versions patch a PodDisruptionBudget by what is there
  // already.
  assert.equal((await server.state()).resourceVersion, resourceVersion, second.stdout);
  const { code, stderr } = await kubectl(...DELETE);
  assert.equal(code, 0, stderr);
  const left = await Promise.all(
    ["namespaces", "clusterroles", "clusterrolebindings", "validatingadmissionpolicies"]
      .map((plural) => server.list(plural)),
  );
  const names = left.flat().map(({ metadata }) => metadata.name);
  assert.deepEqual(names.filter((name) => name.startsWith("kube-gateway")), []);
});

Deno.test("annotate, wait, describe and delete with kubectl", async (t) => {
  await using lab = await Lab.open({ cluster: "api" });
  const [web, db] = await lab.addPods([
    { name: "web", node: "node-a" },
    { name: "db", node: "node-b" },
  ]);
  assert(web && db);
  await lab.startSigner();
  const args = ["--daemon-set", "kube-gateway-agent"];
  const agents = await Promise.all(lab.nodes.map(({ name }) => lab.startAgent(name, { args })));
  const { kubeconfig } = await lab.api.server.user("kubernetes-admin", ["system:masters"]);
  const kubectl = (...args: string[]) => run(lab.outside, kubeconfig, lab.temporary, args);
  const conditions = async () =>
    (await Promise.all([web, db].map((pod) => lab.api.secured(pod)))).map((condition) =>
      `${condition?.status} ${condition?.message}`
    );

  await t.step("annotated pods can be waited for, and say what has become of them", async () => {
    const annotated = await kubectl("annotate", "pod", "web", "db", "kube-gateway.io=true");
    assert.equal(annotated.code, 0, annotated.stderr);
    const waited = await kubectl(
      ...["wait", "--for=condition=kube-gateway.io/Secured", "--timeout=30s", "pod/web", "pod/db"],
    );
    assert.equal(waited.code, 0, waited.stderr);
    let text = "";
    await until(
      async () => {
        text = (await kubectl("describe", "pod", "web")).stdout;
        return /kube-gateway\.io\/Secured +True/.test(text) && /Normal +Enrolled/.test(text);
      },
      10_000,
      () => text,
    );
  });

  await t.step("deleted, agents take back what they said while they still may", async () => {
    const { code, stdout, stderr } = await kubectl(...DELETE);
    assert.equal(code, 1, "the namespace stays for the time being");
    assert.match(stderr, /namespaces "kube-gateway" is forbidden: .* taking back/);
    assert.match(stdout, /daemonset\.apps "kube-gateway-agent" deleted/);
    await until(
      async () => (await conditions()).every((line) => /^False .* being removed/.test(line)),
      5_000,
      () => agents.map((agent) => agent.logTail()).join("\n"),
    );
    // Only now, as kubelet would a moment later.
    for (const agent of agents) assert.equal(await agent.stop(), 0);
    assert.deepEqual(await lab.api.server.list("endpointslices", "kube-gateway"), []);
  });

  await t.step("deleted again, nothing is left", async () => {
    for (const { metadata: { name } } of await lab.api.server.list("pods", "kube-gateway")) {
      const of = { resource: "pods", namespace: "kube-gateway", name };
      await lab.api.server.delete(of, { gracePeriodSeconds: 0 }); // kubelet, of the agents' pods
    }
    const { code, stderr } = await kubectl(...DELETE);
    assert.equal(code, 0, stderr);
    const namespaces = await lab.api.server.list("namespaces");
    assert(!namespaces.some(({ metadata }) => metadata.name === "kube-gateway"));
    assert((await conditions()).every((line) => line.startsWith("False ")));
  });
});

function argvOf(kubeconfig: string, directory: string, args: string[]): string[] {
  const where = ["--kubeconfig", kubeconfig, "--cache-dir", `${directory}/kubectl-cache`];
  return ["kubectl", ...where, ...args];
}

function run(place: Place, kubeconfig: string, directory: string, args: string[]) {
  return place.run(argvOf(kubeconfig, directory, args));
}
