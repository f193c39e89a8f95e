/**
 * Certificates are the signer's to give: to the agent of the pod's node, from one template, and to
 * nobody else.
 */
import assert from "node:assert/strict";
import { newKeyAndRequest } from "../src/identity/csr.ts";
import { ApiError } from "../src/kubernetes/errors.ts";
import {
  CA,
  certificateOf,
  conditionsOf,
  csrByOpenssl,
  podObject,
  type RequestChange,
  REQUESTS,
  SigningCluster,
  type SigningRequest,
  textOfLeaf,
  verifyWithOpenssl,
  type Who,
} from "./lab/signing.ts";

Deno.test("a legal request is approved and signed from the template in under a second", async () => {
  await using cluster = await SigningCluster.open();
  await Promise.all([cluster.startSigner(), cluster.startSigner()]);
  await cluster.request("agent-a"); // somebody leads now
  const began = performance.now();
  const request = await cluster.request("agent-a");
  assert(performance.now() - began < 1_000, `it took ${performance.now() - began} ms`);
  assert.deepEqual(conditionsOf(request), ["Approved PodOnRequestersNode"]);
  const text = await textOfLeaf(request);
  assert.match(text, /Subject: *\n/);
  assert.match(text, /Basic Constraints: critical\n +CA:FALSE\n/);
  assert.match(
    text,
    /Alternative Name: critical\n +URI:spiffe:\/\/cluster.local\/ns\/shop\/sa\/web, IP Address:10.1.0.5\n/,
  );
  assert.equal(text.match(/X509v3 /g)?.length, 8, "the template's extensions and no other");
  assert.match(await verifyWithOpenssl(certificateOf(request), await cluster.bundle()), /: OK/);
});

Deno.test("what a request says beyond its key is overridden", async () => {
  await using cluster = await SigningCluster.open();
  await cluster.startSigner({ args: ["--cert-ttl", "3600"] });
  const csr = await csrByOpenssl(
    "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /O=system:masters/CN=admin " +
      "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign " +
      "-addext subjectAltName=URI:spiffe://cluster.local/ns/kube-system/sa/admin,IP:10.9.9.9,DNS:x",
  );
  const tenYears = { expirationSeconds: 315_360_000 };
  const text = await textOfLeaf(await cluster.request("agent-a", { csr, spec: tenYears }));
  const plain = await textOfLeaf(await cluster.request("agent-a"));
  assert(!/admin|masters|Certificate Sign|CA:TRUE|10\.9\.9\.9|DNS:/.test(text), text);
  assert.equal(withoutItsOwn(text), withoutItsOwn(plain), "the same as for a modest request");
  const [, from = "", to = ""] = /Not Before: (.*)\n *Not After *: (.*)\n/.exec(text) ?? [];
  const lifetime = Date.parse(to) - Date.parse(from);
  assert.equal(lifetime, (3600 + 300) * 1000, "the template's lifetime and the clocks' skew");
});

Deno.test("a request that is not for a pod on the requester's node is denied, with its reason", async () => {
  await using cluster = await SigningCluster.open();
  const put = (name: string, changes: Parameters<typeof podObject>[0] = {}) => {
    const uid = `uid-of-${name}`;
    const metadata = { name, uid, ...changes.metadata };
    const object = podObject({ ...changes, metadata });
    return { object, pod: { name, uid } };
  };
  const deleting = put("deleting", { metadata: { deletionTimestamp: "2026-01-01T00:00:00Z" } });
  const succeeded = put("succeeded", { status: { phase: "Succeeded" } });
  const failed = put("failed", { status: { phase: "Failed" } });
  const host = put("host", { spec: { hostNetwork: true } });
  const pending = put("pending", {
    spec: { nodeName: "" },
    status: { phase: "Pending", podIPs: [] },
  });
  const early = put("early", { status: { phase: "Pending", podIPs: [] } });
  const all = [deleting, succeeded, failed, host, pending, early];
  await cluster.server.seed(all.map(({ object }) => object));
  await cluster.startSigner();

  const { csr } = await newKeyAndRequest();
  const spoilt = csr.slice();
  spoilt[csr.length - 1] = (csr[csr.length - 1] ?? 0) ^ 1;
  const rsa = await csrByOpenssl("-newkey rsa:1024 -subj /CN=x");
  const p384 = await csrByOpenssl("-newkey ec -pkeyopt ec_paramgen_curve:P-384 -subj /CN=x");
  const at = (addresses: string) => ({ pod: { addresses } });
  const earlyAt = (addresses: string) => ({ pod: { ...early.pod, addresses } });
  const cases: [string, Who, RequestChange, RegExp][] = [
    ["other node", "agent-b", {}, /^PodOnOtherNode .*"node-a".*"node-b"/],
    ["other namespace", "agent-a", { pod: { namespace: "bank" } }, /^PodNotFound .*bank\/web-0/],
    ["wrong UID", "agent-a", { pod: { uid: "another" } }, /^PodUidMismatch .*"another"/],
    ["deleted pod", "agent-a", { pod: { name: "gone" } }, /^PodNotFound/],
    ["pod being deleted", "agent-a", deleting, /^PodDeleted/],
    ["finished pod", "agent-a", succeeded, /^PodFinished .*Succeeded/],
    ["failed pod", "agent-a", failed, /^PodFinished/],
    ["hostNetwork pod", "agent-a", host, /^HostNetwork/],
    ["unscheduled pod", "agent-a", pending, /^PodOnOtherNode .*no node yet/],
    ["no node claim", "unbound", {}, /^NoNodeClaim .*before 1\.30/],
    ["requester not the agent", "web", {}, /^WrongRequester .*shop:web/],
    ["another pod's address", "agent-a", at("10.1.0.6"), /^AddressMismatch/],
    ["an address more", "agent-a", at("10.1.0.5,fd00::5"), /^AddressMismatch/],
    ["the node's address", "agent-a", earlyAt("10.1.0.250"), /^AddressTaken .*node-a/],
    ["no address of a pod", "agent-a", at("127.0.0.1"), /^BadAddresses/],
    ["no pod", "agent-a", { pod: { name: "" } }, /^NoPod/],
    ["other usages", "agent-a", { spec: { usages: ["cert sign"] } }, /^BadUsages .*cert sign/],
    ["RSA", "agent-a", { csr: rsa }, /^BadKey/],
    ["P-384", "agent-a", { csr: p384 }, /^BadKey/],
    ["bad proof of possession", "agent-a", { csr: spoilt }, /^BadProof/],
    ["no PKCS#10", "agent-a", { csr: new Uint8Array(200) }, /^BadRequest/],
    ["huge", "agent-a", { csr: new Uint8Array(30_000) }, /^BadRequest/],
  ];
  await Promise.all(cases.map(async ([name, who, change, expected]) => {
    const request = await cluster.request(who, change);
    const [condition, ...more] = request?.status?.conditions ?? [];
    assert.equal(condition?.type, "Denied", name);
    assert.match(`${condition?.reason} ${condition?.message}`, expected, name);
    assert.equal(more.length, 0, name);
    assert.equal(request?.status?.certificate, undefined, name);
  }));
  const legal = await cluster.request("agent-a", { csr });
  assert.deepEqual(conditionsOf(legal), ["Approved PodOnRequestersNode"], "the legal one is not");
});

Deno.test("a pod without status gets its certificate from the node's CIDR, else when its status is there", async () => {
  await using cluster = await SigningCluster.open();
  await cluster.startSigner();
  const early = { phase: "Pending", podIPs: [] };
  await cluster.server.seed([podObject({ status: early })]);
  assert.match(await textOfLeaf(await cluster.request("agent-a")), /IP Address:10.1.0.5\n/);

  const began = performance.now();
  const foreign = await cluster.request("agent-a", { pod: { addresses: "10.2.0.5" } }, 15_000);
  assert.deepEqual(conditionsOf(foreign), ["Denied AddressNotOfNode"]);
  assert(performance.now() - began > 4_000, "its status had the time to come");

  // Node b has no CIDRs: another IPAM.
  await cluster.server.seed([podObject({ spec: { nodeName: "node-b" }, status: early })]);
  const name = await cluster.file("agent-b");
  assert.equal(await cluster.settled(name, 400), undefined, "nothing is issued on its word");
  await cluster.server.seed([podObject({ spec: { nodeName: "node-b" } })]);
  assert.match(await textOfLeaf(await cluster.settled(name)), /IP Address:10.1.0.5\n/);
});

Deno.test("with a node's token exactly its pods' certificates can be had, and nothing of the CA", async () => {
  await using cluster = await SigningCluster.open();
  await cluster.startSigner();
  const pods = ["node-a", "node-a", "node-a", "node-b", "node-b"].map((nodeName, i) => {
    const [name, uid, addresses] = [`pod-${i}`, `uid-${i}`, `10.3.0.${i + 2}`];
    const podIPs = [{ ip: addresses }];
    const object = podObject({
      metadata: { name, uid },
      spec: { nodeName },
      status: { podIPs },
    });
    return { object, nodeName, pod: { name, uid, addresses } };
  });
  await cluster.server.seed(pods.map(({ object }) => object));
  for (const [who, node] of [["agent-a", "node-a"], ["agent-b", "node-b"]] as const) {
    const issued = await Promise.all(pods.map(async ({ pod, nodeName }) => {
      const request = await cluster.request(who, { pod });
      if (nodeName !== node) assert.deepEqual(conditionsOf(request), ["Denied PodOnOtherNode"]);
      return request?.status?.certificate === undefined ? undefined : nodeName;
    }));
    assert.deepEqual(issued, pods.map(({ nodeName }) => nodeName === node ? node : undefined), who);
  }

  // A request that nobody decides: what an agent could do to its own.
  const name = await cluster.file("agent-a", { spec: { signerName: "example.com/other" } });
  const api = await cluster.api("agent-a");
  const own = await api.request("GET", `${REQUESTS}/${name}`) as SigningRequest;
  const secrets = "/api/v1/namespaces/kube-gateway/secrets";
  const bundle = "/api/v1/namespaces/kube-gateway/configmaps/kube-gateway-trust-bundle";
  const lease = "/apis/coordination.k8s.io/v1/namespaces/kube-gateway/leases/kube-gateway-signer";
  for (
    const [method, path, body] of [
      ["GET", `${secrets}/${CA.name}`],
      ["GET", secrets],
      ["GET", "/api/v1/secrets"],
      ["DELETE", `${secrets}/${CA.name}`],
      ["POST", secrets, { apiVersion: "v1", kind: "Secret", metadata: { name: "x" } }],
      ["PUT", `${REQUESTS}/${name}/approval`, own],
      ["PUT", `${REQUESTS}/${name}/status`, own],
      ["DELETE", `${REQUESTS}/${name}`],
      ["PUT", bundle, { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "x" } }],
      ["GET", lease],
    ] as const
  ) {
    const refused = await api.request(method, path, { body }).catch((error) => error);
    assert(refused instanceof ApiError, `${method} ${path} was answered`);
    assert.equal(refused.status, 403, `${method} ${path}: ${refused.message}`);
  }
});

Deno.test("what was approved by hand is judged all the same", async () => {
  await using cluster = await SigningCluster.open();
  const names = [await cluster.file("web"), await cluster.file("agent-a")];
  // By a person who meant well; and by an earlier leader, that did not come to sign.
  for (const name of names) {
    const approved = { type: "Approved", status: "True", reason: "Me", message: "" };
    const reference = { resource: "certificatesigningrequests", name };
    await cluster.server.patch(reference, { status: { conditions: [approved] } }, "approval");
  }
  await cluster.startSigner();
  const [byHand, left] = await Promise.all(names.map((name) => cluster.settled(name)));
  assert.deepEqual(conditionsOf(byHand), ["Approved Me", "Failed WrongRequester"]);
  assert.equal(byHand?.status?.certificate, undefined);
  assert.match(await textOfLeaf(left), /IP Address:10.1.0.5/);
});

Deno.test("requests for other signers and decided ones are left alone", async () => {
  await using cluster = await SigningCluster.open();
  await cluster.startSigner();
  const other = await cluster.file("agent-a", { spec: { signerName: "example.com/x" } });
  const done = await cluster.request("agent-a");
  const since = Date.now();
  await cluster.request("agent-a");
  assert.equal(await cluster.settled(other, 300), undefined);
  const writes = await cluster.server.requests({ verb: "patch", path: /signingrequests/, since });
  assert.equal(writes.length, 2, "the approval and the certificate of the second");
  assert(!writes.some(({ path }) => path.includes(done?.metadata.name ?? "")));
});

/** `openssl x509 -text` without serial, dates, key, key ID and signature. */
function withoutItsOwn(text: string): string {
  return text
    .replace(/Serial Number:\s+\S+/, "")
    .replace(/(Not Before|Not After ): .*/g, "")
    .replace(/pub:\n(\s+[0-9a-f:]+\n)+/, "")
    .replace(/(Subject Key Identifier: \n\s+)\S+/, "$1")
    .replace(/Signature Value:[\s\S]*/, "");
}
