import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { newKeyAndRequest } from "../identity/csr.ts";
import { openssl } from "../identity/openssl_command.ts";
import type { FakeApiServer, FakeObject } from "./fake_api_server.ts";
import {
  AGENT,
  BUNDLE_PATH,
  csrOf,
  fileRequest,
  openScene,
  pod,
  POD_PATH,
  requestBody,
  REQUESTS,
  settled,
  startSigner,
  until,
} from "./signer_scene.ts";

Deno.test("a legal request is approved and signed from the template in under a second", async () => {
  await withSigner(async (server) => {
    await fileRequest(server, "agent-a", await requestBody()); // the signer has started now
    const began = performance.now();
    const request = await fileRequest(server, "agent-a", await requestBody());
    ok(performance.now() - began < 1_000);
    deepStrictEqual(conditions(request), ["Approved PodOnRequestersNode"]);
    const text = await certificateText(request);
    match(text, /Subject: *\n/);
    match(text, /Basic Constraints: critical\n +CA:FALSE\n/);
    match(
      text,
      /Alternative Name: critical\n +URI:spiffe:\/\/cluster.local\/ns\/shop\/sa\/web, IP Address:10.1.0.5\n/,
    );
    strictEqual(text.match(/X509v3 /g)?.length, 7, "the template's extensions and no other");
    match(await verify(server, request), /: OK/);
  });
});

Deno.test("what a request says beyond its key is overridden", async () => {
  const greedy = await csrOf(
    "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /O=system:masters/CN=admin " +
      "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign " +
      "-addext subjectAltName=URI:spiffe://cluster.local/ns/kube-system/sa/admin,IP:10.9.9.9,DNS:x",
  );
  await withSigner(async (server) => {
    const spec = { expirationSeconds: 315_360_000 }; // ten years
    const request = await fileRequest(server, "agent-a", await requestBody({ csr: greedy, spec }));
    const text = await certificateText(request);
    ok(!/admin|masters|Certificate Sign|CA:TRUE|10\.9\.9\.9|DNS:/.test(text), text);
    strictEqual(text.match(/X509v3 /g)?.length, 7);
    const dates = /Not Before: (.*)\n *Not After *: (.*)\n/.exec(text) ?? [];
    const lifetime = Date.parse(dates[2] ?? "") - Date.parse(dates[1] ?? "");
    strictEqual(lifetime, (3600 + 300) * 1000, "the template's lifetime and the clocks' skew");
  });
});

Deno.test("requests that are not for a pod on the requester's node are denied, each with its reason", async () => {
  const { csr } = await newKeyAndRequest();
  const spoilt = csr.slice();
  spoilt[csr.length - 1] = (csr[csr.length - 1] ?? 0) ^ 1;
  const note = (key: string, value?: string) => ({
    annotations: { [`kube-gateway.io/pod-${key}`]: value },
  });
  const ended = (phase: string) => pod({}, { phase, podIPs: [{ ip: "10.1.0.5" }] });
  const deleting = pod({}, undefined, { deletionTimestamp: "2026-01-01T00:00:00Z" });
  const rsa = await csrOf("-newkey rsa:1024 -subj /CN=x");
  const p384 = await csrOf("-newkey ec -pkeyopt ec_paramgen_curve:P-384 -subj /CN=x");
  const P = pod();
  /** Who asks, for what, the pod as it is, and the denial. */
  type Case = [
    string,
    string,
    Parameters<typeof requestBody>[0],
    FakeObject | undefined,
    RegExp,
  ];
  const cases: Case[] = [
    ["other node", "agent-b", {}, P, /^PodOnOtherNode .*"node-a".*"node-b"/],
    ["other namespace", "agent-a", note("namespace", "bank"), P, /^PodNotFound .*bank\/web-0/],
    ["wrong UID", "agent-a", note("uid", "another"), P, /^PodUidMismatch .*"another"/],
    ["deleted pod", "agent-a", {}, undefined, /^PodNotFound/],
    ["pod being deleted", "agent-a", {}, deleting, /^PodDeleted/],
    ["finished pod", "agent-a", {}, ended("Succeeded"), /^PodFinished .*Succeeded/],
    ["failed pod", "agent-a", {}, ended("Failed"), /^PodFinished/],
    ["hostNetwork pod", "agent-a", {}, pod({ hostNetwork: true }), /^HostNetwork/],
    ["unscheduled pod", "agent-a", {}, pod({ nodeName: "" }), /^PodOnOtherNode .*no node yet/],
    ["no node claim", "unbound", {}, P, /^NoNodeClaim .*older than/],
    ["requester not the agent", "web", {}, P, /^WrongRequester .*shop:web/],
    ["another pod's address", "agent-a", note("addresses", "10.1.0.6"), P, /^AddressMismatch/],
    ["an address more", "agent-a", note("addresses", "10.1.0.5,fd00::5"), P, /^AddressMismatch/],
    ["no pod", "agent-a", note("name"), P, /^NoPod/],
    ["other usages", "agent-a", { spec: { usages: ["cert sign"] } }, P, /^BadUsages .*cert sign/],
    ["RSA", "agent-a", { csr: rsa }, P, /^BadKey/],
    ["P-384", "agent-a", { csr: p384 }, P, /^BadKey/],
    ["bad proof of possession", "agent-a", { csr: spoilt }, P, /^BadProof/],
    ["garbage", "agent-a", { csr: new Uint8Array(200) }, P, /^BadRequest/],
    ["no PEM", "agent-a", { spec: { request: btoa("hello") } }, P, /^BadRequest/],
    ["huge", "agent-a", { csr: new Uint8Array(30_000) }, P, /^BadRequest/],
  ];
  await withSigner(async (server) => {
    for (const [name, token, change, current, expected] of cases) {
      server.put(POD_PATH, current ?? P);
      if (current === undefined) server.remove(POD_PATH);
      const request = await fileRequest(server, token, await requestBody(change));
      strictEqual(request?.status?.certificate, undefined, name);
      const [condition] = request?.status?.conditions ?? [];
      strictEqual(condition?.type, "Denied", name);
      match(`${condition?.reason} ${condition?.message}`, expected, name);
    }
    server.put(POD_PATH, P);
    const legal = await fileRequest(server, "agent-a", await requestBody({ csr }));
    deepStrictEqual(conditions(legal), ["Approved PodOnRequestersNode"], "the legal one is not");
  });
});

Deno.test("a pod without status gets its certificate from the node's CIDR, else when its status is there", async () => {
  await withSigner(async (server) => {
    const unknown = { phase: "Pending" };
    server.put(POD_PATH, pod({}, unknown));
    const early = await fileRequest(server, "agent-a", await requestBody());
    match(await certificateText(early), /IP Address:10.1.0.5\n/);

    const own = { annotations: { "kube-gateway.io/pod-addresses": "10.1.0.250" } };
    const ofNode = await fileRequest(server, "agent-a", await requestBody(own));
    match(conditions(ofNode).join(), /Denied AddressOfNode/);

    const foreign = { annotations: { "kube-gateway.io/pod-addresses": "10.2.0.5" } };
    const began = performance.now();
    const outside = await fileRequest(server, "agent-a", await requestBody(foreign), 15_000);
    match(conditions(outside).join(), /Denied AddressNotOfNode/);
    ok(performance.now() - began > 4_000, "its status had the time to come");

    // Node b has no CIDRs: another IPAM.
    server.put(POD_PATH, pod({ nodeName: "node-b" }, unknown));
    const filed = fileRequest(server, "agent-b", await requestBody());
    strictEqual(
      await Promise.race([filed, later(400)]),
      undefined,
      "nothing is issued on its word",
    );
    server.put(POD_PATH, pod({ nodeName: "node-b" }));
    match(await certificateText(await filed), /IP Address:10.1.0.5\n/);
  });
});

Deno.test("what was approved by hand is judged all the same", async () => {
  await withSigner(async (server) => {
    const body = await requestBody() as FakeObject;
    const object = {
      ...body,
      metadata: { ...body.metadata, name: "by-hand" },
      spec: { ...body.spec, username: "system:serviceaccount:shop:web" },
      status: { conditions: [{ type: "Approved", status: "True", reason: "x", message: "" }] },
    };
    server.put(`${REQUESTS}/by-hand`, object);
    deepStrictEqual(conditions(await settled(server, "by-hand")), [
      "Approved x",
      "Failed WrongRequester",
    ]);
    // One that an earlier leader approved and did not come to sign.
    const extra = { "authentication.kubernetes.io/node-name": ["node-a"] };
    server.put(`${REQUESTS}/left`, {
      ...object,
      metadata: { ...body.metadata, name: "left" },
      spec: { ...body.spec, username: AGENT, extra },
    });
    match(await certificateText(await settled(server, "left")), /IP Address:10.1.0.5/);
  });
});

Deno.test("requests for other signers and decided ones are left alone", async () => {
  await withSigner(async (server) => {
    const other = await requestBody({ spec: { signerName: "example.com/x" } });
    strictEqual(await fileRequest(server, "agent-a", other, 300), undefined);
    const done = await fileRequest(server, "agent-a", await requestBody());
    const name = done?.metadata.name ?? "";
    server.requests.length = 0;
    await fileRequest(server, "agent-a", await requestBody());
    await later(200);
    const now = server.objects.get(`${REQUESTS}/${name}`);
    strictEqual(now?.metadata.resourceVersion, done?.metadata.resourceVersion);
    ok(!server.requests.some((line) => line.startsWith("PUT") && line.includes(name)));
  });
});

Deno.test("an API server that answers 500 and 409 delays a certificate and does not prevent it", async () => {
  await withSigner(async (server) => {
    let left = 8;
    server.intercept = (request, path) => {
      if (request.method === "POST" || !path.startsWith(REQUESTS) || left-- <= 0) return undefined;
      return Response.json({ kind: "Status", reason: "x" }, { status: left % 2 ? 500 : 409 });
    };
    const made = await fileRequest(server, "agent-a", await requestBody(), 20_000);
    ok(made?.status?.certificate);
  });
});

async function withSigner(use: (server: FakeApiServer) => Promise<void>): Promise<void> {
  await using server = openScene();
  const signer = startSigner(server);
  try {
    await until("leads", () => server.objects.has(BUNDLE_PATH));
    await use(server);
  } finally {
    await signer.stop();
  }
}

async function certificateText(request: FakeObject | undefined): Promise<string> {
  const pem = atob(request?.status?.certificate ?? "");
  const said = await openssl(["x509", "-noout", "-text"], new TextEncoder().encode(pem));
  strictEqual(said.ok, true, `${said.text} ${conditions(request)}`);
  return said.text;
}

/** With the CA that is in the bundle. */
async function verify(server: FakeApiServer, request: FakeObject | undefined): Promise<string> {
  const directory = await Deno.makeTempDir();
  try {
    const bundle = server.objects.get(BUNDLE_PATH)?.data?.["ca-bundle.pem"] ?? "";
    await Deno.writeTextFile(`${directory}/ca`, bundle);
    await Deno.writeTextFile(`${directory}/leaf`, atob(request?.status?.certificate ?? ""));
    const args = ["verify", "-x509_strict", "-CAfile", `${directory}/ca`, `${directory}/leaf`];
    return (await openssl(args)).text;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function conditions(request: FakeObject | undefined): string[] {
  return (request?.status?.conditions ?? []).map(({ type, reason }) => `${type} ${reason}`);
}

function later(milliseconds: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(() => resolve(undefined), milliseconds));
}
