/**
 * The promise: whoever has an agent's token can write nothing that is large, stays when it is
 * deleted, or asks another signer for a certificate, and no number of slices without end: every
 * agent reads the slices when it starts, the signer the requests that are made to it. What an agent
 * itself writes, the longest that it can be, is allowed.
 */
import assert from "node:assert/strict";
import { ConditionWriter } from "../src/cluster/condition_writer.ts";
import { type EndpointSliceObject, type RegistryEntry, slicesOf } from "../src/cluster/registry.ts";
import { spiffeId } from "../src/identity/spiffe.ts";
import { ADMINISTRATOR, agent, check } from "./lab/admission_check.ts";
import { requestBody } from "./lab/signing.ts";

const NODE = "node-a";
const KUBELET = { username: "system:node:node-c", groups: ["system:nodes"] };
const long = (length: number) => "x".repeat(length);

Deno.test("a slice holds what an agent writes there, and nothing else", () => {
  const [slice] = slicesOf(NODE, [entry(0)]);
  assert(slice);
  const [endpoint] = slice.endpoints;
  const of = (change: object) => ({ ...slice, ...change });
  const ending = (change: object) => of({ endpoints: [{ ...endpoint, ...change }] });
  const target = (change: object) => ending({ targetRef: { ...endpoint?.targetRef, ...change } });
  const port = (change: object) => of({ ports: [{ ...slice.ports[0], ...change }] });
  const node = { apiVersion: "v1", kind: "Node", name: NODE, uid: crypto.randomUUID() };
  const owned = (...ownerReferences: object[]) =>
    of({ metadata: { ...slice.metadata, ownerReferences } });
  for (
    const [name, object, refused] of [
      ["its own", slice, undefined],
      ["without pods", of({ endpoints: [] }), undefined],
      ["without pods, as Go may write it", of({ endpoints: null }), undefined],
      ["its Node's", owned(node), undefined],
      ["nobody's", owned(), undefined],
      ["another Node's", owned({ ...node, name: "node-b" }), /own Node/],
      ["another kind's", owned({ ...node, kind: "Pod" }), /own Node/],
      ["two owners", owned(node, node), /own Node/],
      ["one that holds its Node", owned({ ...node, blockOwnerDeletion: true }), /own Node/],
      ["one that is controlled", owned({ ...node, controller: true }), /own Node/],
      ["a hostname", ending({ hostname: "x" }), /nothing else/],
      ["topology", ending({ deprecatedTopology: { a: long(100_000) } }), /nothing else/],
      ["a zone", ending({ zone: long(100_000) }), /nothing else/],
      ["hints", ending({ hints: { forZones: [{ name: "z" }] } }), /nothing else/],
      ["a field to come", ending({ tomorrow: long(100_000) }), /nothing else/],
      ["no target", ending({ targetRef: undefined }), /by namespace, name and UID/],
      ["a field path", target({ fieldPath: long(100_000) }), /by namespace, name and UID/],
      ["a version", target({ resourceVersion: "1" }), /by namespace, name and UID/],
      ["another kind", target({ kind: "Node" }), /by namespace, name and UID/],
      ["a long namespace", target({ namespace: long(64) }), /by namespace, name and UID/],
      ["a long name", target({ name: long(254) }), /by namespace, name and UID/],
      ["a long UID", target({ uid: long(254) }), /by namespace, name and UID/],
      ["no port", of({ ports: [] }), /the tunnel's port/],
      ["all ports", of({ ports: null }), /the tunnel's port/],
      ["two ports", of({ ports: [slice.ports[0], { name: "b", port: 1 }] }), /the tunnel's port/],
      ["another port", port({ port: 18444 }), /the tunnel's port/],
      ["another protocol", port({ protocol: "UDP" }), /the tunnel's port/],
      ["a port's protocol", port({ appProtocol: long(200) }), /the tunnel's port/],
      ["names for addresses", of({ addressType: "FQDN" }), /addresses and ports/],
      ["a field of the slice", of({ tomorrow: 1 }), /addresses and ports/],
    ] as [string, object, RegExp | undefined][]
  ) {
    checkSlice(name, object, refused);
    checkSlice(`${name}, changed to`, object, refused, slice);
  }
});

Deno.test("the longest slice that an agent can write is allowed, and no longer one", () => {
  const pods = Array.from({ length: 100 }, (_, index) => ({
    ...entry(index),
    uid: `${index}`.padEnd(253, "u"),
    namespace: long(63),
    name: long(253),
    identity: spiffeId(long(255), long(63), long(253)),
  }));
  const [slice] = slicesOf(NODE, pods);
  assert(slice);
  checkSlice("the longest", slice, undefined);
  const [[key, text] = ["", ""]] = Object.entries(slice.metadata.annotations);
  assert(text.length < 85_000);
  checkSlice("longer", annotated(slice, { [key]: text.padEnd(85_001) }), /longer ones/);
  checkSlice("of long letters", annotated(slice, { [key]: "€".repeat(30_000) }), /longer ones/);
});

Deno.test("what hangs on an agent's object is little, and does not keep it from being deleted", () => {
  const [slice] = slicesOf(NODE, [entry(0)]);
  assert(slice);
  const { metadata } = slice;
  const many = (count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [`l${index}`, ""]));
  const hung = (change: object) => ({ ...slice, metadata: { ...metadata, ...change } });
  const managed = (...writers: object[]) => hung({ managedFields: writers });
  const deep = { "f:metadata": { "f:labels": { ".": {}, "f:a": {} } }, "f:endpoints": {} };
  const stays = hung({ finalizers: ["a/b"] });
  for (
    const [name, object, refused] of [
      ["a finalizer", stays, /stay/],
      ["another's labels", hung({ labels: { ...metadata.labels, ...many(6) } }), undefined],
      ["many labels", hung({ labels: { ...metadata.labels, ...many(7) } }), /more labels/],
      ["another's annotation", annotated(slice, { a: long(1024) }), undefined],
      ["a long annotation", annotated(slice, { a: long(1025) }), /longer ones/],
      ["many annotations", annotated(slice, many(8)), /more labels and annotations/],
      ["a link", hung({ selfLink: long(100_000) }), /not known/],
      ["a long owner", hung({ ownerReferences: [owner({ uid: long(254) })] }), /long names/],
      ["who has written", managed({ manager: "deno", fieldsV1: deep }), undefined],
      ["many writers", managed(...Array(7).fill({ fieldsV1: deep })), /managed fields/],
      ["many fields", managed({ fieldsV1: { "f:metadata": { "f:labels": many(11) } } }), /managed/],
      ["a long field", managed({ fieldsV1: { [long(33)]: {} } }), /managed fields/],
      ["deep fields", managed({ fieldsV1: { a: { b: { c: {} } } } }), /managed fields/],
    ] as [string, object, RegExp | undefined][]
  ) {
    checkSlice(name, object, refused);
    checkSlice(`${name}, changed to`, object, refused, slice);
  }
  checkSlice("others' finalizers keep no agent from writing", stays, undefined, stays);
  checkSlice("an administrator may do it", stays, undefined, slice, ADMINISTRATOR);
});

Deno.test("an agent asks its own signer only, for its own node, and nobody asks that one at length", async () => {
  const body = await requestBody();
  const own = { ...body, metadata: { ...body.metadata, name: "r" } };
  const asked = (change: object) => ({ ...own, spec: { ...own.spec, ...change } });
  const hung = (change: object) => ({ ...own, metadata: { ...own.metadata, ...change } });
  const labelled = (node: string) => hung({ labels: { "kube-gateway.io/node": node } });
  const unlabelled = hung({ labels: {} });
  const others = "kubernetes.io/kube-apiserver-client";
  assert(body.spec.request.length < 1024);
  for (
    const [name, user, object, refused] of [
      ["an agent", agent(NODE), labelled(NODE), undefined],
      ["for another signer", agent(NODE), asked({ signerName: others }), /pods' certificates only/],
      ["for another node", agent(NODE), labelled("node-b"), /own node/],
      ["for no node", agent(NODE), unlabelled, /own node/],
      ["without a claim: the signer says why not", agent(), labelled(NODE), undefined],
      ["anybody", KUBELET, unlabelled, undefined],
      ["as an agent", KUBELET, labelled(NODE), /only an agent/],
      ["another signer", KUBELET, asked({ signerName: others, request: long(20_000) }), undefined],
    ] as [string, typeof KUBELET, object, RegExp | undefined][]
  ) checkRequest(name, user, object, refused);
  for (
    const [name, change, refused] of [
      ["the longest request", { spec: { ...own.spec, request: long(16_384) } }, undefined],
      ["a longer request", { spec: { ...own.spec, request: long(16_385) } }, /larger/],
      ["usages", { spec: { ...own.spec, usages: Array(9).fill("any") } }, /larger/],
      ["a finalizer", hung({ finalizers: ["a/b"] }), /stay/],
      ["an annotation", hung({ annotations: { a: long(1025) } }), /longer ones/],
      [
        "a slice's annotation",
        hung({ annotations: { "kube-gateway.io/identities": "" } }),
        /larger/,
      ],
      ["managed fields", hung({ managedFields: [{ fieldsV1: { [long(33)]: {} } }] }), /managed/],
    ] as [string, object, RegExp | undefined][]
  ) {
    const object = { ...unlabelled, ...change } as { metadata: object };
    const labels = { "kube-gateway.io/node": NODE };
    const agents = { ...object, metadata: { ...object.metadata, labels } };
    const anybodys = { ...object, metadata: { ...object.metadata, labels: {} } };
    checkRequest(name, agent(NODE), agents, refused);
    checkRequest(`${name} of anybody's`, KUBELET, anybodys, refused);
    checkRequest(`${name}, changed to`, ADMINISTRATOR, agents, refused, own);
  }
  checkRequest("an administrator's label", ADMINISTRATOR, labelled(NODE), undefined, own);
});

Deno.test("an agent's Events say who speaks, are about pods, and are short", async () => {
  const event = await eventOfAgent();
  const about = (change: object) => ({ regarding: { ...event.regarding as object, ...change } });
  for (
    const [name, change, refused] of [
      ["its own", {}, undefined],
      ["another's name", { reportingController: "kubelet" }, /say who/],
      ["another node's", { reportingInstance: "node-b" }, /say who/],
      ["another deed", { action: "Kill" }, /say who/],
      ["about a node", about({ kind: "Node" }), /about pods/],
      ["about another kind of pod", about({ apiVersion: "x/v1" }), /about pods/],
      ["about another namespace's", about({ namespace: "kube-system" }), /about pods/],
      ["about a field", about({ fieldPath: long(100_000) }), /about pods/],
      ["about a long name", about({ name: long(254) }), /about pods/],
      ["about nothing", { regarding: undefined }, /about pods/],
      ["related to something", { related: { name: long(100_000) } }, /short/],
      ["again and again", { series: { count: 2 } }, /short/],
      ["a long note", { note: long(1025) }, /short/],
      ["a finalizer", { metadata: { ...event.metadata, finalizers: ["a/b"] } }, /stay/],
      [
        "an annotation",
        { metadata: { ...event.metadata, annotations: { a: long(1025) } } },
        /longer ones/,
      ],
    ] as [string, object, RegExp | undefined][]
  ) checkEvent(name, { ...event, ...change }, refused);
  checkEvent("without a claim", event, /say who/, agent());
  checkEvent("somebody else", { ...event, action: "Kill" }, undefined, ADMINISTRATOR);
});

function entry(index: number): RegistryEntry {
  return {
    uid: `u-${index}`,
    namespace: "shop",
    name: "web",
    identity: "spiffe://cluster.local/ns/shop/sa/web",
    node: NODE,
    addresses: [`10.0.0.${index + 2}`],
    ready: true,
  };
}

function annotated(slice: EndpointSliceObject, more: Record<string, string>): object {
  const { metadata } = slice;
  return { ...slice, metadata: { ...metadata, annotations: { ...metadata.annotations, ...more } } };
}

function owner(change: object): object {
  return { apiVersion: "v1", kind: "Node", name: NODE, uid: "u", ...change };
}

/** What an agent posts when a pod of its has become secured. */
async function eventOfAgent(): Promise<Record<string, unknown> & { metadata: object }> {
  const posted: unknown[] = [];
  const api = {
    request(method: string, _path: string, { body }: { body?: unknown } = {}) {
      if (method === "POST") posted.push(body);
      return Promise.resolve({});
    },
  };
  const writer = new ConditionWriter(api, NODE);
  const pod = { uid: "u", namespace: "shop", name: "web", secured: undefined };
  const message = "€".repeat(2000);
  const verdict = { pod, status: "True", reason: "Enrolled", message } as const;
  await writer.tell([verdict as unknown as Parameters<ConditionWriter["tell"]>[0][number]]);
  await writer.close();
  const [event] = posted;
  return event as Record<string, unknown> & { metadata: object };
}

function checkSlice(
  name: string,
  object: object,
  refused: RegExp | undefined,
  oldObject?: object,
  user = agent(NODE),
): void {
  const operation = oldObject === undefined ? "CREATE" : "UPDATE";
  const write = { operation, user, group: "discovery.k8s.io", resource: "endpointslices" };
  check(name, { ...write, object: asJson(object), oldObject }, refused);
}

function checkRequest(
  name: string,
  user: ReturnType<typeof agent>,
  object: object,
  refused: RegExp | undefined,
  oldObject?: object,
): void {
  const operation = oldObject === undefined ? "CREATE" : "UPDATE";
  const resource = { group: "certificates.k8s.io", resource: "certificatesigningrequests" };
  const write = { operation, user, ...resource, namespace: "", object: asJson(object), oldObject };
  check(name, write, refused);
}

function checkEvent(
  name: string,
  object: object,
  refused: RegExp | undefined,
  user = agent(NODE),
): void {
  const write = { operation: "CREATE", group: "events.k8s.io", resource: "events" };
  check(name, { ...write, user, namespace: "shop", object: asJson(object) }, refused);
}

/** What is undefined is not there. */
function asJson(object: object): unknown {
  return JSON.parse(JSON.stringify(object));
}
