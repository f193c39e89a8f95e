import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { ObjectError } from "./parse.ts";
import { readService, readServiceEndpoints } from "./services.ts";

const SERVICE = {
  kind: "Service",
  metadata: { name: "api", namespace: "shop" },
  spec: {
    type: "ClusterIP",
    clusterIP: "10.96.0.7",
    clusterIPs: ["10.96.0.7", "fd00::7"],
    ports: [
      { name: "http", port: 80, targetPort: 8080, protocol: "TCP" },
      { name: "dns", port: 53, protocol: "UDP" },
    ],
  },
};

Deno.test("of a Service is kept what routing needs", () => {
  const plain = {
    namespace: "shop",
    name: "api",
    created: 0,
    clusterIps: ["10.96.0.7", "fd00::7"],
    ports: [{ name: "http", port: 80 }],
    affinitySeconds: 0,
    localOnly: false,
  };
  deepStrictEqual(readService(SERVICE), plain);
  const creationTimestamp = "2026-11-27T10:00:00Z";
  const aged = { ...SERVICE, metadata: { ...SERVICE.metadata, creationTimestamp } };
  strictEqual(readService(aged)?.created, Date.UTC(2026, 10, 27, 10));
  const spec = (change: object) =>
    readService({ ...SERVICE, spec: { ...SERVICE.spec, ...change } });
  deepStrictEqual(spec({ sessionAffinity: "ClientIP" }), { ...plain, affinitySeconds: 10_800 });
  const config = { clientIP: { timeoutSeconds: 60 } };
  deepStrictEqual(spec({ sessionAffinity: "ClientIP", sessionAffinityConfig: config }), {
    ...plain,
    affinitySeconds: 60,
  });
  deepStrictEqual(spec({ internalTrafficPolicy: "Local" }), { ...plain, localOnly: true });
  deepStrictEqual(spec({ clusterIPs: null })?.clusterIps, ["10.96.0.7"]);
  strictEqual(spec({ clusterIP: "None", clusterIPs: ["None"] }), undefined);
  deepStrictEqual(spec({ clusterIPs: ["127.0.0.1", "fd00::7"] })?.clusterIps, ["fd00::7"]);
  strictEqual(spec({ clusterIPs: ["169.254.1.1", "::1"] }), undefined);
  strictEqual(spec({ type: "ExternalName" }), undefined);
  strictEqual(spec({ ports: SERVICE.spec.ports.slice(1) }), undefined);
  throws(() => spec({ ports: [{ port: 70_000 }] }), ObjectError);
  throws(() => readService({ metadata: { name: 1 }, spec: {} }), ObjectError);
});

const SLICE = {
  kind: "EndpointSlice",
  metadata: {
    name: "api-x",
    namespace: "shop",
    labels: { "kubernetes.io/service-name": "api" },
  },
  addressType: "IPv4",
  ports: [{ name: "http", port: 8080, protocol: "TCP" }],
  endpoints: [
    { addresses: ["10.0.0.1"], conditions: { ready: true }, nodeName: "n1" },
    {
      addresses: ["10.0.0.2"],
      conditions: {},
      hints: { forZones: [{ name: "a" }], forNodes: [{ name: "n" }] },
    },
    { addresses: ["10.0.0.3"], conditions: { ready: false, serving: true, terminating: true } },
    { addresses: ["10.0.0.4"], conditions: { ready: false, serving: false, terminating: true } },
    { addresses: ["10.0.0.5"], conditions: { ready: false, serving: true } },
    { addresses: ["10.0.0.6"], conditions: { ready: false, terminating: true } },
  ],
};

Deno.test("of an EndpointSlice is kept which endpoints there are, and in what state", () => {
  const { endpoints, ...others } = readServiceEndpoints(SLICE) ?? { endpoints: [] };
  deepStrictEqual(others, {
    namespace: "shop",
    service: "api",
    ports: [{ name: "http", port: 8080 }],
  });
  deepStrictEqual(
    endpoints.map(({ address, state, node, zones, nodes }) => [
      ...[address, state, node],
      ...zones,
      ...nodes,
    ]),
    [
      ["10.0.0.1", "ready", "n1"],
      ["10.0.0.2", "ready", "", "a", "n"],
      ["10.0.0.3", "terminating", ""],
      ["10.0.0.4", "down", ""],
      ["10.0.0.5", "down", ""],
      ["10.0.0.6", "terminating", ""],
    ],
  );
  strictEqual(readServiceEndpoints({ ...SLICE, addressType: "FQDN" }), undefined);
  strictEqual(readServiceEndpoints({ ...SLICE, metadata: { name: "x" } }), undefined);
  strictEqual(readServiceEndpoints({ ...SLICE, ports: null }), undefined);
  throws(() => readServiceEndpoints({ ...SLICE, endpoints: [{}] }), ObjectError);
});
