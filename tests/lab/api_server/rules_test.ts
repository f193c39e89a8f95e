import assert from "node:assert/strict";
import { eventViolations, legacyViolations } from "./event_rules.ts";
import type { Fields, KubeObject } from "./objects.ts";
import { podStatusViolations } from "./pod_status_rules.ts";
import { sliceViolations } from "./slice_rules.ts";

Deno.test("Events of events.k8s.io/v1 (pkg/apis/core/validation/events.go, ValidateEventCreate)", () => {
  const event = object({
    eventTime: "2026-01-01T00:00:00.000000Z",
    type: "Normal",
    reason: "Enrolled",
    action: "Secure",
    note: "x".repeat(1024),
    reportingController: "kube-gateway.io/agent",
    reportingInstance: "node-a",
    regarding: { kind: "Pod", namespace: "shop", name: "web" },
  });
  for (
    const [change, wanted] of [
      [{}, ""],
      [{ eventTime: undefined }, "eventTime"],
      [{ type: "Error" }, "type"],
      [{ reason: "" }, "reason"],
      [{ reason: "x".repeat(129) }, "reason"],
      [{ action: "" }, "action"],
      [{ note: "x".repeat(1025) }, "message"],
      [{ note: "ü".repeat(513) }, "message"], // Go's len counts bytes
      [{ reportingController: "" }, "reportingController"],
      [{ reportingController: "kube-gateway.io/a/b" }, "reportingController"],
      [{ reportingInstance: "" }, "reportingInstance"],
      [{ reportingInstance: "x".repeat(129) }, "reportingInstance"],
      [{ regarding: { kind: "Node", name: "a" } }, "involvedObject.namespace"],
      [{ deprecatedCount: 1 }, "deprecatedCount"],
    ] as [Fields, string][]
  ) {
    const found = eventViolations({ ...event, ...change }).map(({ field }) => field).join();
    assert.equal(found, wanted, JSON.stringify(change).slice(0, 100));
  }
  const old = object({ involvedObject: { namespace: "ops" } });
  assert.equal(legacyViolations(old)[0]?.field, "involvedObject.namespace");
});

Deno.test("EndpointSlices (pkg/apis/discovery/validation/validation.go)", () => {
  const endpoint = { addresses: ["10.0.0.1"], nodeName: "node-a" };
  const port = { name: "tunnel", port: 18443, protocol: "TCP" };
  const slice = object({ addressType: "IPv4", endpoints: [endpoint], ports: [port] });
  const addresses = (...list: string[]) => ({ endpoints: [{ addresses: list }] });
  for (
    const [change, wanted] of [
      [{}, ""],
      [{ addressType: "IP" }, "addressType"],
      [{ endpoints: Array(1000).fill(endpoint) }, ""],
      [{ endpoints: Array(1001).fill(endpoint) }, "endpoints"],
      [addresses(), "endpoints[0].addresses"],
      [addresses(...Array(101).fill("10.0.0.1")), "endpoints[0].addresses"],
      [addresses("10.0.0.256"), "endpoints[0].addresses[0]"],
      [addresses("10.0.0.01"), "endpoints[0].addresses[0]"],
      [addresses("fd00::1"), "endpoints[0].addresses[0]"],
      [addresses("127.0.0.1"), "endpoints[0].addresses[0]"],
      [addresses("169.254.1.1"), "endpoints[0].addresses[0]"],
      [{ addressType: "IPv6", ...addresses("fd00::1") }, ""],
      [{ addressType: "IPv6", ...addresses("fe80::1") }, "endpoints[0].addresses[0]"],
      [{ endpoints: [{ ...endpoint, nodeName: "A_b" }] }, "endpoints[0].nodeName"],
      [{ ports: [{ ...port, name: "Tunnel" }] }, "ports[0].name"],
      [{ ports: [{ ...port, protocol: "QUIC" }] }, "ports[0].protocol"],
      [{ ports: [port, port] }, "ports"],
    ] as [Fields, string][]
  ) {
    const found = [
      ...new Set(sliceViolations({ ...slice, ...change }).map(({ field }) => field)),
    ].join();
    assert.equal(found, wanted, JSON.stringify(change).slice(0, 100));
  }
});

Deno.test("a pod's status (pkg/apis/core/validation/validation.go, ValidatePodStatusUpdate)", () => {
  const ips = (...list: string[]) => ({ podIPs: list.map((ip) => ({ ip })), podIP: list[0] });
  for (
    const [status, wanted] of [
      [ips("10.0.0.1", "fd00::1"), ""],
      [ips("10.0.0.1", "10.0.0.2"), "status.podIPs"],
      [ips("10.0.0"), "status.podIPs"],
      [{ ...ips("10.0.0.1"), podIP: "10.0.0.2" }, "status.podIPs"],
      [{ conditions: [{ type: "kube-gateway.io/Secured" }] }, ""],
      [{ conditions: [{ type: "a/b/c" }] }, "status.conditions.type"],
      [{ qosClass: "BestEffort" }, "status.qosClass"],
    ] as [Fields, string][]
  ) {
    const old = object({ status: { qosClass: "Burstable" } });
    const next = object({ status: { qosClass: "Burstable", ...status } });
    const found = podStatusViolations(next, old).map(({ field }) => field).join();
    assert.equal(found, wanted, JSON.stringify(status));
  }
});

function object(fields: Fields): KubeObject {
  const metadata = { name: "web", namespace: "shop", uid: "u", resourceVersion: "1" };
  return { apiVersion: "v1", kind: "Any", metadata, ...fields };
}
