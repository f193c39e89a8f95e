import { deepStrictEqual } from "node:assert/strict";
import type { Service, ServiceEndpoint, ServiceEndpoints } from "../../cluster/services.ts";
import { frontendsOf, preferReady } from "./endpoint_choice.ts";

const SERVICE: Service = {
  namespace: "shop",
  name: "api",
  created: 0,
  clusterIps: ["10.96.0.1", "fd96::1"],
  ports: [{ name: "http", port: 80 }],
  affinitySeconds: 0,
  localOnly: false,
};
const HERE = { node: "a", zone: "east" };

Deno.test("each address and port of a Service is a frontend, its backends of the same family and port name", () => {
  const slices = [
    slice([endpoint("10.0.0.1"), endpoint("10.0.0.2")], [{ name: "http", port: 8080 }]),
    slice([endpoint("fd00::1")], [{ name: "http", port: 8081 }, { name: "other", port: 9 }]),
  ];
  const service = { ...SERVICE, ports: [...SERVICE.ports, { name: "other", port: 90 }] };
  deepStrictEqual(
    frontendsOf(service, slices, HERE).map(({ address, port, backends }) => [
      `${address} ${port}`,
      backends.map((backend) => `${backend.address} ${backend.port}`),
    ]),
    [
      ["10.96.0.1 80", ["10.0.0.1 8080", "10.0.0.2 8080"]],
      ["10.96.0.1 90", []],
      ["fd96::1 80", ["fd00::1 8081"]],
      ["fd96::1 90", ["fd00::1 9"]],
    ],
  );
});

Deno.test("an endpoint that two slices name counts once", () => {
  const both = [slice([endpoint("10.0.0.2"), endpoint("10.0.0.1")]), slice([endpoint("10.0.0.1")])];
  deepStrictEqual(chosen(SERVICE, both), ["10.0.0.1", "10.0.0.2"]);
});

Deno.test("the endpoints are those that kube-proxy would use", () => {
  const local = { ...SERVICE, localOnly: true };
  const cases: [string, Service, Partial<ServiceEndpoint>[], number[]][] = [
    ["ready ones", SERVICE, [{}, { state: "terminating" }, { state: "down" }], [0]],
    [
      "terminating ones when none is ready",
      SERVICE,
      [{ state: "terminating" }, { state: "down" }],
      [
        0,
      ],
    ],
    ["none", SERVICE, [{ state: "down" }], []],
    ["local ones only", local, [{ node: "b" }, { node: "a" }], [1]],
    ["none when none is local", local, [{ node: "b" }], []],
    ["a local terminating one when none is ready here", local, [
      { node: "b" },
      { node: "a", state: "terminating" },
    ], [1]],
    ["those of our zone", SERVICE, [{ zones: ["west"] }, { zones: ["east", "west"] }], [1]],
    ["all when one has no hint", SERVICE, [{ zones: ["west"] }, { zones: [] }], [0, 1]],
    ["all when no hint is for us", SERVICE, [{ zones: ["west"] }, { zones: ["north"] }], [0, 1]],
    ["those of our node before those of our zone", SERVICE, [
      { nodes: ["b"], zones: ["east"] },
      { nodes: ["a"], zones: ["west"] },
    ], [1]],
    ["those of our zone when one has no hint of nodes", SERVICE, [
      { nodes: [], zones: ["east"] },
      { nodes: ["a"], zones: ["west"] },
    ], [0]],
    ["those of our zone when none is for our node", SERVICE, [
      { nodes: ["b"], zones: ["west"] },
      { nodes: ["c"], zones: ["east"] },
    ], [1]],
    ["local ones whatever their hints say", local, [{ node: "a", zones: ["west"] }], [0]],
  ];
  for (const [name, service, endpoints, expected] of cases) {
    const slices = [slice(endpoints.map((each, index) => endpoint(`10.0.0.${index}`, each)))];
    deepStrictEqual(chosen(service, slices), expected.map((index) => `10.0.0.${index}`), name);
  }
});

Deno.test("hints mean nothing to a node without a zone", () => {
  const slices = [slice([endpoint("10.0.0.1", { zones: ["west"] })])];
  deepStrictEqual(
    frontendsOf(SERVICE, slices, { node: "a", zone: undefined })[0]?.backends.length,
    1,
  );
});

Deno.test("a peer that cannot be served yet is chosen only when nothing else is there", () => {
  const backends = ["10.0.0.1", "10.0.0.2"].map((address) => ({ address, port: 80 }));
  const [one, two] = backends;
  deepStrictEqual(preferReady(backends, () => false), backends);
  deepStrictEqual(preferReady(backends, (address) => address === one?.address), [two]);
  deepStrictEqual(preferReady(backends, () => true), backends);
  deepStrictEqual(preferReady([], () => true), []);
});

function chosen(service: Service, slices: ServiceEndpoints[]): string[] {
  return frontendsOf(service, slices, HERE)[0]?.backends.map(({ address }) => address) ?? [];
}

function endpoint(address: string, more: Partial<ServiceEndpoint> = {}): ServiceEndpoint {
  return { address, state: "ready", node: "b", zones: [], nodes: [], ...more };
}

function slice(
  endpoints: ServiceEndpoint[],
  ports: ServiceEndpoints["ports"] = [{ name: "http", port: 8080 }],
): ServiceEndpoints {
  return { namespace: "shop", service: "api", ports, endpoints };
}
