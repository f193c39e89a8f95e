import { deepStrictEqual, match, strictEqual, throws } from "node:assert/strict";
import { REGISTRY_LABEL } from "../constants.ts";
import { readObjects, readPod, readSlice } from "./objects.ts";
import { ObjectError } from "./parse.ts";

const POD = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: {
    name: "web-0",
    namespace: "shop",
    uid: "uid-web",
    annotations: { "kube-gateway.io": "true", "kubernetes.io/config.hash": "h", other: "x" },
    labels: { app: "web" },
  },
  spec: { nodeName: "n1", serviceAccountName: "web", containers: [{ name: "c" }] },
  status: {
    phase: "Running",
    podIP: "10.0.0.1",
    podIPs: [{ ip: "10.0.0.1" }, { ip: "FD00:0::1" }],
  },
};

Deno.test("a pod is reduced to what matters here", () => {
  deepStrictEqual(readPod(POD), {
    uid: "uid-web",
    namespace: "shop",
    name: "web-0",
    nodeName: "n1",
    serviceAccount: "web",
    annotations: { "kube-gateway.io": "true", "kubernetes.io/config.hash": "h" },
    addresses: ["10.0.0.1", "fd00::1"],
    hostNetwork: false,
    phase: "Running",
    deleting: false,
  });
});

Deno.test("what the API server leaves out or writes as null has its meaning", () => {
  const bare = {
    uid: "u",
    namespace: "default",
    name: "p",
    nodeName: "",
    serviceAccount: "",
    annotations: {},
    addresses: [],
    hostNetwork: false,
    phase: "Pending",
    deleting: false,
  };
  deepStrictEqual(readPod({ metadata: { name: "p", uid: "u" } }), bare);
  deepStrictEqual(
    readPod({
      metadata: { name: "p", uid: "u", annotations: null, deletionTimestamp: null },
      spec: { serviceAccountName: "", nodeName: null, hostNetwork: null },
      status: { podIP: "", podIPs: null, phase: null },
    }),
    bare,
  );
  const going = {
    ...POD,
    metadata: { ...POD.metadata, deletionTimestamp: "2026-01-01T00:00:00Z" },
  };
  strictEqual(readPod(going).deleting, true);
  strictEqual(readPod({ ...POD, spec: { hostNetwork: true } }).hostNetwork, true);
});

Deno.test("a long annotation is cut and marked, and their number bounded", () => {
  const pod = readPod({
    ...POD,
    metadata: { ...POD.metadata, annotations: { "kube-gateway.io": "true".padEnd(1e6, "x") } },
  });
  strictEqual(pod.annotations["kube-gateway.io"]?.length, 257);
  strictEqual(pod.annotations["kube-gateway.io"]?.endsWith("…"), true);
  const exact = "x".repeat(256);
  strictEqual(
    readPod({ ...POD, metadata: { ...POD.metadata, annotations: { "kube-gateway.io/a": exact } } })
      .annotations["kube-gateway.io/a"],
    exact,
  );
  const many = Object.fromEntries(
    Array.from({ length: 1000 }, (_, i) => [`kube-gateway.io/${i}`, "x"]),
  );
  const { annotations } = readPod({ ...POD, metadata: { ...POD.metadata, annotations: many } });
  strictEqual(Object.keys(annotations).length, 32);
});

Deno.test("annotations that mean something are kept, however many others come before them", () => {
  const known = {
    "kube-gateway.io": "true",
    "kube-gateway.io/allow": "x",
    "kube-gateway.io/egress": "strict",
    "kube-gateway.io/inbound": "strict",
    "kubernetes.io/config.hash": "h",
  };
  const others = Array.from({ length: 1000 }, (_, i) => [`kube-gateway.io/a${i}`, "x"]);
  const annotations = { ...Object.fromEntries(others), ...known };
  const pod = readPod({ ...POD, metadata: { ...POD.metadata, annotations } });
  deepStrictEqual({ ...pod.annotations, ...known }, pod.annotations);
});

Deno.test("an invalid pod is refused with the path of the field", () => {
  const metadata = POD.metadata;
  for (
    const [change, path, message] of [
      [{ metadata: { ...metadata, uid: undefined } }, ["metadata", "uid"], /uid/],
      [{ metadata: { ...metadata, uid: "../etc" } }, ["metadata", "uid"], /is no UID/],
      [{ metadata: { ...metadata, uid: ".." } }, ["metadata", "uid"], /is no UID/],
      [{ metadata: { ...metadata, name: "Web" } }, ["metadata", "name"], /no Kubernetes name/],
      [{ metadata: { ...metadata, namespace: "a.b" } }, ["metadata", "namespace"], /namespace/],
      [
        { metadata: { ...metadata, annotations: { "kube-gateway.io": true } } },
        ["metadata", "annotations", "kube-gateway.io"],
        /quotes/,
      ],
      [{ spec: { nodeName: "a/b" } }, ["spec", "nodeName"], /Kubernetes name|Expected/],
      [{ spec: { hostNetwork: "yes" } }, ["spec", "hostNetwork"], /boolean/],
      [{ spec: { serviceAccountName: "a/b" } }, ["spec", "serviceAccountName"], /./],
      [{ status: { podIP: "10.0.0.256" } }, ["status", "podIP"], /no IP address/],
      [{ status: { podIPs: [{ ip: "x" }] } }, ["status", "podIPs", 0, "ip"], /no IP address/],
      [
        { status: { podIPs: ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map((ip) => ({ ip })) } },
        ["status", "podIPs"],
        /3 addresses/,
      ],
      [{ metadata: "x" }, ["metadata"], /Pod: |metadata/],
    ] as const
  ) {
    throws(() => readPod({ ...POD, ...change }, ["items", 7]), (error: unknown) => {
      strictEqual(error instanceof ObjectError, true, String(error));
      deepStrictEqual((error as ObjectError).path, ["items", 7, ...path]);
      match((error as Error).message, message);
      return true;
    });
  }
});

Deno.test("a message holds no more than a bounded piece of hostile text", () => {
  const long = "A\n".repeat(1e5);
  for (
    const metadata of [{ ...POD.metadata, name: long }, { ...POD.metadata, uid: long }, {
      ...POD.metadata,
      annotations: { [long]: 1 },
    }]
  ) {
    throws(() => readPod({ ...POD, metadata }), ({ message }: Error) => {
      strictEqual(message.length < 600, true, String(message.length));
      return true;
    });
  }
});

const SLICE = {
  apiVersion: "discovery.k8s.io/v1",
  kind: "EndpointSlice",
  metadata: {
    name: "registry-n1-ipv4-0",
    namespace: "kube-gateway",
    labels: { [REGISTRY_LABEL]: "n1" },
    annotations: { "kube-gateway.io/identities": "{}", other: "x" },
  },
  addressType: "IPv4",
  endpoints: [
    {
      addresses: ["10.0.0.1"],
      conditions: { ready: true },
      nodeName: "n1",
      targetRef: { kind: "Pod", namespace: "shop", name: "web-0", uid: "u", resourceVersion: "1" },
    },
    { addresses: ["10.0.0.2"], conditions: { ready: false } },
    { addresses: ["10.0.0.3"] },
  ],
  ports: [{ name: "tunnel", port: 18443, protocol: "TCP" }],
};

Deno.test("only the registry's EndpointSlices are kept", () => {
  deepStrictEqual(readSlice(SLICE), {
    namespace: "kube-gateway",
    name: "registry-n1-ipv4-0",
    node: "n1",
    addressType: "IPv4",
    annotations: { "kube-gateway.io/identities": "{}" },
    endpoints: [
      {
        addresses: ["10.0.0.1"],
        ready: true,
        nodeName: "n1",
        targetRef: { kind: "Pod", namespace: "shop", name: "web-0", uid: "u" },
      },
      {
        addresses: ["10.0.0.2"],
        ready: false,
        nodeName: "",
        targetRef: { kind: "", namespace: "", name: "", uid: "" },
      },
      {
        addresses: ["10.0.0.3"],
        ready: true,
        nodeName: "",
        targetRef: { kind: "", namespace: "", name: "", uid: "" },
      },
    ],
    ports: [{ name: "tunnel", port: 18443, protocol: "TCP" }],
  });
  const ordinary = { ...SLICE, metadata: { name: "web-abc", labels: { app: "x" } }, endpoints: 1 };
  strictEqual(readSlice(ordinary), undefined);
  strictEqual(readSlice({ ...SLICE, endpoints: null })?.endpoints.length, 0);
  throws(
    () => readSlice({ ...SLICE, endpoints: Array(1001).fill({ addresses: [] }) }),
    ObjectError,
  );
  throws(() => readSlice({ ...SLICE, endpoints: [{}] }), { path: ["endpoints", 0, "addresses"] });
});

Deno.test("lists are unwrapped and other kinds passed over", () => {
  const { kind: _, ...bare } = POD;
  const kinds = (document: unknown) => readObjects(document).map(({ kind, path }) => [kind, path]);
  deepStrictEqual(kinds(POD), [["Pod", []]]);
  deepStrictEqual(kinds(null), []);
  deepStrictEqual(kinds({ kind: "ConfigMap", metadata: 1 }), []);
  deepStrictEqual(kinds({ kind: "List", items: [{ kind: "ConfigMap" }, POD, SLICE] }), [
    ["Pod", ["items", 1]],
    ["EndpointSlice", ["items", 2]],
  ]);
  deepStrictEqual(kinds({ kind: "PodList", items: [bare, POD] }), [
    ["Pod", ["items", 0]],
    ["Pod", ["items", 1]],
  ]);
  deepStrictEqual(
    kinds({ kind: "EndpointSliceList", items: [{ ...SLICE, kind: undefined }].slice(1) }),
    [],
  );
  deepStrictEqual(kinds({ kind: "PodList", items: null }), []);
  for (const document of [1, "x", [], {}, { kind: 1 }, { kind: "List", items: {} }]) {
    throws(() => readObjects(document), ObjectError);
  }
  throws(() => readObjects({ kind: "List", items: [1] }), { path: ["items", 0] });
  const loop: { kind: string; items: unknown[] } = { kind: "List", items: [] };
  loop.items.push(loop);
  throws(() => readObjects(loop), /a list in a list/);
});
