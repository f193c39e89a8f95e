/**
 * The promise: `kubectl apply -f daemonset/` takes the manifests in one go, they say what the
 * program needs, and nobody gets a right that he does not use.
 */
import assert from "node:assert/strict";
import { DENY_LIST } from "../src/cluster/deny_list.ts";
import { type EndpointSliceObject, slicesOf } from "../src/cluster/registry.ts";
import { parseCommandLine } from "../src/commands/command_line.ts";
import { GATEWAY_NAMESPACE } from "../src/constants.ts";
import { CA_SECRET, DEFAULT_SIGNER_NAME, TRUST_BUNDLE } from "../src/identity/signing_names.ts";
import { LEASE } from "../src/signer/signer.ts";
import type { AdmissionRequest, ListObjects } from "./lab/api_server/admission.ts";
import { ADMINISTRATOR, agent, check, WRITE } from "./lab/admission_check.ts";
import { REPOSITORY, RESTRICT, V8_FLAGS } from "./lab/agent.ts";
import type { KubeObject } from "./lab/api_server/objects.ts";
import admit from "./lab/api_server/policies.ts";
import { type Manifest, manifests } from "./lab/cluster_api.ts";
import { typeProblems } from "./lab/openapi.ts";

const all = await manifests();
const examples = await manifests("examples/");

Deno.test("every field of every manifest is one of Kubernetes' own types", async () => {
  assert(all.length >= 17 && examples.length >= 3);
  for (const manifest of [...all, ...examples]) {
    const { kind, metadata: { name } } = manifest;
    assert.deepEqual(await typeProblems(manifest), [], `${kind} ${name}`);
  }
  const [namespace] = all;
  const wrong = {
    ...namespace,
    spec: { finalisers: [] },
    metadata: { name: 1, labels: { a: true } },
  };
  assert.deepEqual(await typeProblems(wrong as unknown as Manifest), [
    "metadata.name is 1, no string",
    "metadata.labels.a is true, no string",
    "spec.finalisers is no field of V1NamespaceSpec",
  ]);
});

Deno.test("what a manifest needs is there, and what an agent speaks by is deleted last", () => {
  const seen = new Set<string>();
  for (const { kind, metadata: { name, namespace } } of all) {
    if (namespace !== undefined) assert(seen.has(`Namespace ${namespace}`), `${kind} ${name}`);
    seen.add(`${kind} ${name}`);
  }
  // `kubectl delete -f` goes in the same order: the namespace's end is seen first, the account goes
  // last.
  assert.equal(all[0]?.kind, "Namespace");
  assert.deepEqual(
    all.slice(-5).map(({ kind, metadata: { name } }) => `${kind} ${name}`),
    [
      "ServiceAccount kube-gateway-agent",
      "ClusterRole kube-gateway-agent",
      "ClusterRoleBinding kube-gateway-agent",
      "ValidatingAdmissionPolicy kube-gateway-uninstall",
      "ValidatingAdmissionPolicyBinding kube-gateway-uninstall",
    ],
  );
  for (const { roleRef, subjects } of ofKind<Binding>("ClusterRoleBinding", "RoleBinding")) {
    assert(seen.has(`${roleRef.kind} ${roleRef.name}`));
    for (const { name } of subjects) assert(seen.has(`ServiceAccount ${name}`));
  }
  for (const { spec } of ofKind<Workload>("DaemonSet", "Deployment")) {
    assert(seen.has(`ServiceAccount ${spec.template.spec.serviceAccountName}`));
    assert.deepEqual(spec.selector.matchLabels, spec.template.metadata.labels);
  }
});

Deno.test("the workloads' arguments and ports are the program's", () => {
  for (const { spec: { template } } of ofKind<Workload>("DaemonSet", "Deployment")) {
    for (const { args, ports, livenessProbe, readinessProbe } of template.spec.containers) {
      const command = parseCommandLine(args.map((arg) => arg.replace("$(NODE_NAME)", "node-a")));
      assert("name" in command);
      const { options } = command;
      assert.equal(options["metrics-address"] ?? options["health-address"], ":8080");
      assert.deepEqual(ports.map(({ containerPort }) => containerPort), [8080]);
      assert.equal(livenessProbe.httpGet.path, "/healthz");
      assert.equal(readinessProbe.httpGet.path, "/readyz");
    }
  }
  const [daemonSet] = ofKind<Workload>("DaemonSet");
  const { args = [] } = daemonSet?.spec.template.spec.containers[0] ?? {};
  assert(args.includes(`--daemon-set=${daemonSet?.metadata.name}`), "it finds its own DaemonSet");
});

Deno.test("the runtime is told the same in the image, from the sources and in the lab", async () => {
  for (const file of ["daemonset/kube-gateway", "deno.json", "scripts/dev.ts"]) {
    const text = await Deno.readTextFile(`${REPOSITORY}${file}`);
    assert(text.includes(V8_FLAGS), file);
  }
  const command = await Deno.readTextFile(`${REPOSITORY}daemonset/kube-gateway`);
  assert(command.includes(`restrict="${RESTRICT.join(" ")}"`));
});

Deno.test("each account has the rights that its part of the program uses, and no other", () => {
  assert.deepEqual(rightsOf("kube-gateway-agent"), [
    "* certificates.k8s.io/certificatesigningrequests: create list watch",
    "* discovery.k8s.io/endpointslices: list watch",
    "* events.k8s.io/events: create",
    "* namespaces: list watch",
    "* node.k8s.io/runtimeclasses: list watch",
    "* nodes: get list watch",
    "* pods/status: get patch",
    "* pods: list watch",
    "* services: list watch",
    "kube-gateway apps/daemonsets kube-gateway-agent: list watch",
    `kube-gateway configmaps ${TRUST_BUNDLE},${DENY_LIST}: list watch`,
    "kube-gateway discovery.k8s.io/endpointslices: create delete patch",
  ]);
  assert.deepEqual(rightsOf("kube-gateway-signer"), [
    "* certificates.k8s.io/certificatesigningrequests/approval: patch",
    "* certificates.k8s.io/certificatesigningrequests/status: patch",
    "* certificates.k8s.io/certificatesigningrequests: get list watch",
    `* certificates.k8s.io/signers ${DEFAULT_SIGNER_NAME}: approve sign`,
    "* nodes: list watch",
    "* pods: get list watch",
    `kube-gateway configmaps ${DENY_LIST}: list watch`,
    `kube-gateway configmaps ${TRUST_BUNDLE}: get update`,
    "kube-gateway configmaps: create",
    `kube-gateway coordination.k8s.io/leases ${LEASE}: get update`,
    "kube-gateway coordination.k8s.io/leases: create",
    `kube-gateway secrets ${CA_SECRET}: get list watch`,
    "kube-gateway secrets: create",
  ]);
});

Deno.test("nobody but metrics' collectors reaches the namespace's pods", () => {
  const [everybody, metrics] = ofKind<NetworkPolicy>("NetworkPolicy");
  assert.deepEqual(everybody?.spec, { podSelector: {}, policyTypes: ["Ingress"] });
  const [daemonSet] = ofKind<Workload>("DaemonSet");
  assert.deepEqual(metrics?.spec.podSelector.matchLabels, daemonSet?.spec.selector.matchLabels);
  const [container] = daemonSet?.spec.template.spec.containers ?? [];
  const ports = metrics?.spec.ingress?.flatMap(({ ports }) => ports.map(({ port }) => port));
  assert.deepEqual(ports, container?.ports.map(({ name }) => name));
});

Deno.test("an agent writes its own node's slices only", () => {
  const named = (name: string) => ({ ...own, metadata: { ...own.metadata, name } });
  const own = sliceOf("node-a");
  const other = sliceOf("node-b");
  const bare = { metadata: { name: "registry-node-a-ipv4-0" } };
  const [endpoint = assert.fail("a pod")] = own.endpoints;
  const full = (...endpoints: object[]) => ({ object: { ...own, endpoints }, oldObject: own });
  for (
    const [name, change, refused] of [
      ["creates its own", { operation: "CREATE", object: own }, undefined],
      ["creates another's", { operation: "CREATE", object: other }, /labelled with its own node/],
      ["creates one without label", { operation: "CREATE", object: bare }, /own node/],
      ["its last", { operation: "CREATE", object: named("registry-node-a-ipv6-41") }, undefined],
      [
        "another name where one is taken",
        { operation: "CREATE", object: named("registry-node-a-ipv6-12-other") },
        undefined,
      ],
      [
        "one more",
        { operation: "CREATE", object: named("registry-node-a-ipv6-42") },
        /named after/,
      ],
      [
        "a number twice",
        { operation: "CREATE", object: named("registry-node-a-ipv6-01") },
        /named/,
      ],
      [
        "any suffix",
        { operation: "CREATE", object: named("registry-node-a-ipv6-12-abcde") },
        /named after/,
      ],
      [
        "another's name",
        { operation: "CREATE", object: named("registry-node-b-ipv4-0") },
        /named after/,
      ],
      [
        "a name that begins like its own",
        { operation: "CREATE", object: named("registry-node-a-ipv4-0-ipv4-0") },
        /named after/,
      ],
      ["any name", { operation: "CREATE", object: named("web-x7k2p") }, /named after/],
      ["pods of its own node", full(...Array(100).fill(endpoint)), undefined],
      ["too many", full(...Array(101).fill(endpoint)), /at most 100/],
      ["another node's pod", full(endpoint, { ...endpoint, nodeName: "node-b" }), /own node only/],
      ["a pod of no node", full({ ...endpoint, nodeName: undefined }), /own node only/],
      ["two addresses", full({ ...endpoint, addresses: ["10.0.0.1", "10.0.0.2"] }), /one address/],
      ["changes its own", { object: own, oldObject: own }, undefined],
      ["takes another's", { object: own, oldObject: other }, /changes only/],
      ["gives its own away", { object: other, oldObject: own }, /writes only/],
      ["deletes its own", { operation: "DELETE", oldObject: own }, undefined],
      ["deletes another's", { operation: "DELETE", oldObject: other }, /changes only/],
      ["without a claim", { object: own, oldObject: own, user: agent() }, /names no node/],
      ["with two claims", { object: own, oldObject: own, user: agent("node-a", "b") }, /no node/],
      ["in another namespace", { namespace: "x", object: other, oldObject: other }, undefined],
      ["somebody else", { object: other, oldObject: other, user: ADMINISTRATOR }, undefined],
    ] as [string, object, RegExp | undefined][]
  ) {
    check(name, { group: "discovery.k8s.io", resource: "endpointslices", ...change }, refused);
  }
});

Deno.test("of a pod's status an agent writes its own condition only, and of its own node's pods", () => {
  const ready = { type: "Ready", status: "True" };
  const secured = { type: "kube-gateway.io/Secured", status: "True" };
  const pod = (status: object = {}, metadata: object = {}, nodeName = "node-a") => ({
    metadata: { name: "web", labels: { app: "web" }, ...metadata },
    spec: { nodeName },
    // As JSON: what is undefined is not there.
    status: JSON.parse(JSON.stringify({
      ...{ phase: "Running", podIPs: [{ ip: "10.0.0.1" }], conditions: [ready], ...status },
    })),
  });
  const said = pod({ conditions: [ready, secured] });
  for (
    const [name, change, refused] of [
      ["its condition", { object: said }, undefined],
      ["its condition again", { object: said, oldObject: said }, undefined],
      [
        "another condition",
        { object: pod({ conditions: [{ ...ready, status: "False" }] }) },
        /no cond/,
      ],
      ["takes a condition away", { object: pod({ conditions: [secured] }) }, /no condition/],
      [
        "a long message",
        { object: pod({ conditions: [ready, { ...secured, message: "x".repeat(1025) }] }) },
        /shortly/,
      ],
      ["its condition twice", { object: pod({ conditions: [ready, secured, secured] }) }, /once/],
      ["addresses", { object: pod({ podIPs: [{ ip: "10.0.0.2" }] }) }, /nothing of a pod/],
      ["its first address", { object: pod({ podIP: "10.0.0.2" }) }, /nothing of a pod/],
      ["the phase", { object: pod({ phase: "Failed" }) }, /nothing of a pod/],
      ["the reason", { object: pod({ reason: "Evicted" }) }, /nothing of a pod/],
      ["the start", { object: pod({ startTime: "2026-01-01T00:00:00Z" }) }, /nothing of a pod/],
      ["containers", { object: pod({ initContainerStatuses: [{}] }) }, /nothing of a pod/],
      ["takes the phase away", { object: pod({ phase: undefined }) }, /nothing of a pod/],
      ["a first status", { object: said, oldObject: pod({ conditions: [] }) }, /no condition/],
      ["labels", { object: pod({}, { labels: { app: "db" } }) }, /labels/],
      ["annotations", { object: pod({}, { annotations: { a: "b" } }) }, /annotations/],
      ["finalizers", { object: pod({}, { finalizers: ["a/b"] }) }, /finalizers/],
      [
        "another node's pod",
        { object: pod({ conditions: [ready, secured] }, {}, "node-b") },
        /own node's pods/,
      ],
      ["without a claim", { object: said, user: agent() }, /own node's pods/],
      ["somebody else", { object: pod({ phase: "Failed" }), user: ADMINISTRATOR }, undefined],
    ] as [string, object, RegExp | undefined][]
  ) {
    check(name, { resource: "pods", subresource: "status", oldObject: pod(), ...change }, refused);
  }
});

function sliceOf(node: string): EndpointSliceObject {
  const identity = "spiffe://cluster.local/ns/shop/sa/web";
  const pod = { uid: "u", namespace: "shop", name: "web", identity, node, ready: true };
  const [slice] = slicesOf(node, [{ ...pod, addresses: ["10.0.0.1"] }]);
  return slice ?? assert.fail("a slice");
}

interface Binding extends Manifest {
  roleRef: { kind: string; name: string };
  subjects: { kind: string; name: string; namespace: string }[];
}

interface Role extends Manifest {
  rules: { apiGroups: string[]; resources: string[]; resourceNames?: string[]; verbs: string[] }[];
}

Deno.test("while a node's part of the registry is there, the namespace and the agents' rights stay", () => {
  const administrator = { user: ADMINISTRATOR, operation: "DELETE", namespace: "" };
  const rbac = { group: "rbac.authorization.k8s.io", name: "kube-gateway-agent" };
  const protectedOnes: object[] = [
    { resource: "namespaces", name: "kube-gateway" },
    { resource: "serviceaccounts", name: "kube-gateway-agent", namespace: GATEWAY_NAMESPACE },
    { resource: "clusterroles", ...rbac },
    { resource: "clusterrolebindings", ...rbac },
    { resource: "roles", ...rbac, namespace: GATEWAY_NAMESPACE },
    { resource: "rolebindings", ...rbac, namespace: GATEWAY_NAMESPACE },
  ];
  const others: object[] = [
    { resource: "namespaces", name: "shop" },
    { resource: "serviceaccounts", name: "kube-gateway-agent", namespace: "shop" },
    { resource: "serviceaccounts", name: "kube-gateway-signer", namespace: GATEWAY_NAMESPACE },
    { ...rbac, resource: "clusterroles", name: "kube-gateway-signer" },
    {
      group: "apps",
      resource: "daemonsets",
      name: "kube-gateway-agent",
      namespace: GATEWAY_NAMESPACE,
    },
  ];
  const slice = sliceOf("node-a") as unknown as KubeObject;
  const list = (...slices: KubeObject[]): ListObjects => (apiVersion, kind) =>
    kind === "EndpointSlice"
      ? slices
      : all.filter((one) => one.apiVersion === apiVersion && one.kind === kind) as never[];
  const judge = (write: object, ...slices: KubeObject[]) =>
    admit({ ...WRITE, ...administrator, ...write } as AdmissionRequest, list(...slices));
  for (const write of protectedOnes) {
    assert.match(judge(write, slice)?.message ?? "", /are still taking back/);
    assert.equal(judge(write), undefined, "no node has a part any more");
    assert.equal(
      judge(write, { ...slice, metadata: { ...slice.metadata, labels: {} } }),
      undefined,
    );
  }
  for (const write of others) assert.equal(judge(write, slice), undefined, JSON.stringify(write));
});

interface NetworkPolicy extends Manifest {
  spec: {
    podSelector: { matchLabels?: Record<string, string> };
    ingress?: { ports: { port: string }[] }[];
  };
}

interface Probe {
  httpGet: { path: string };
}

interface Workload extends Manifest {
  spec: {
    selector: { matchLabels: Record<string, string> };
    template: {
      metadata: { labels: Record<string, string> };
      spec: {
        serviceAccountName: string;
        containers: {
          args: string[];
          ports: { name: string; containerPort: number }[];
          livenessProbe: Probe;
          readinessProbe: Probe;
        }[];
      };
    };
  };
}

function ofKind<T extends Manifest>(...kinds: string[]): T[] {
  return all.filter(({ kind }) => kinds.includes(kind)) as T[];
}

/** `namespace group/resource name: verbs`, sorted; `*` for all namespaces. */
function rightsOf(account: string): string[] {
  const bindings = ofKind<Binding>("ClusterRoleBinding", "RoleBinding").filter(({ subjects }) =>
    subjects.some(({ name, namespace }) => name === account && namespace === GATEWAY_NAMESPACE)
  );
  return bindings.flatMap(({ metadata, roleRef }) => {
    const role = ofKind<Role>(roleRef.kind).find(({ metadata: { name } }) => name === roleRef.name);
    const where = metadata.namespace ?? "*";
    return (role?.rules ?? []).flatMap(({ apiGroups, resources, resourceNames, verbs }) =>
      apiGroups.flatMap((group) =>
        resources.map((resource) =>
          `${where} ${group === "" ? resource : `${group}/${resource}`}${
            resourceNames === undefined ? "" : ` ${resourceNames}`
          }: ${[...verbs].sort().join(" ")}`
        )
      )
    );
  }).sort();
}
