import { deepStrictEqual } from "node:assert/strict";
import type { Service, ServiceEndpoints } from "../../cluster/services.ts";
import { ServiceIndex } from "./service_index.ts";

const NONE = new Set<string>();
const READY = { ready: true };

Deno.test("a Service is redirected while one of its endpoints is a peer, whatever came first", () => {
  const peers = new Set<string>();
  const index = new ServiceIndex("a", (address) => peers.has(address) ? READY : undefined);
  const objects = cluster({ api: ["10.0.0.1", "10.0.0.2"], web: ["10.0.0.3"] });
  deepStrictEqual(update(index, objects), {});
  peers.add("10.0.0.2");
  deepStrictEqual(update(index, objects, ["10.0.0.2"]), { api: ["10.0.0.1", "10.0.0.2"] });
  deepStrictEqual(update(index, objects), {}, "nothing has changed");
  peers.delete("10.0.0.2");
  deepStrictEqual(update(index, objects, ["10.0.0.2"]), { api: [] });
});

Deno.test("only what has changed is told", () => {
  const peers = new Set(["10.0.0.1", "10.0.0.3", "10.0.0.9"]);
  const index = new ServiceIndex("a", (address) => peers.has(address) ? READY : undefined);
  const objects = cluster({ api: ["10.0.0.1"], web: ["10.0.0.3"] });
  deepStrictEqual(update(index, objects), { api: ["10.0.0.1"], web: ["10.0.0.3"] });
  const grown = cluster({ api: ["10.0.0.1", "10.0.0.9"] });
  const next = {
    services: new Map([...objects.services]),
    endpoints: new Map([...objects.endpoints, ...grown.endpoints]),
  };
  deepStrictEqual(update(index, next), { api: ["10.0.0.1", "10.0.0.9"] });
  next.services.delete("default/web"); // the source may change its own maps
  deepStrictEqual(update(index, next), { web: [] });
  next.endpoints.delete("default/api-1");
  deepStrictEqual(update(index, next), { api: [] });
});

Deno.test("a Service of peers that cannot be served yet is redirected, and prefers those that can", () => {
  const ready = new Map([["10.0.0.1", false], ["10.0.0.2", false]]);
  const index = new ServiceIndex("a", (address) => {
    const known = ready.get(address);
    return known === undefined ? undefined : { ready: known };
  });
  const objects = cluster({ api: ["10.0.0.1", "10.0.0.2"], mixed: ["10.0.0.1", "10.0.0.9"] });
  deepStrictEqual(update(index, objects), {
    api: ["10.0.0.1", "10.0.0.2"],
    mixed: ["10.0.0.9"], // redirected all the same: kube-proxy might choose the other
  });
  ready.set("10.0.0.1", true);
  deepStrictEqual(update(index, objects, ["10.0.0.1"]), {
    api: ["10.0.0.1"],
    mixed: ["10.0.0.1", "10.0.0.9"],
  });
});

Deno.test("another zone is another choice", () => {
  const index = new ServiceIndex("a", () => READY);
  const { services, endpoints } = cluster({ api: ["10.0.0.1"] });
  index.update(services, endpoints, undefined, NONE);
  deepStrictEqual(index.update(services, endpoints, "east", NONE).map(({ service }) => service), [
    "default/api",
  ]);
});

function update(
  index: ServiceIndex,
  { services, endpoints }: ReturnType<typeof cluster>,
  moved: string[] = [],
): Record<string, string[]> {
  return Object.fromEntries(
    index.update(services, endpoints, undefined, new Set(moved)).map(({ service, frontends }) => [
      service.replace("default/", ""),
      frontends.flatMap(({ backends }) => backends.map(({ address }) => address)),
    ]),
  );
}

function cluster(addresses: Record<string, string[]>) {
  const services = new Map<string, Service>();
  const endpoints = new Map<string, ServiceEndpoints>();
  for (const [name, list] of Object.entries(addresses)) {
    services.set(`default/${name}`, {
      namespace: "default",
      name,
      created: 0,
      clusterIps: ["10.96.0.1"],
      ports: [{ name: "", port: 80 }],
      affinitySeconds: 0,
      localOnly: false,
    });
    endpoints.set(`default/${name}-1`, {
      namespace: "default",
      service: name,
      ports: [{ name: "", port: 80 }],
      endpoints: list.map((address) => ({
        address,
        state: "ready",
        node: "b",
        zones: [],
        nodes: [],
      })),
    });
  }
  return { services, endpoints };
}
