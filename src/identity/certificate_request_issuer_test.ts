import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import type { KubernetesApi } from "../kubernetes/api.ts";
import { Certificate } from "../native/certificate.ts";
import type { FakeApiServer, FakeObject } from "../signer/fake_api_server.ts";
import {
  apiOf,
  BUNDLE_PATH,
  NAMESPACE,
  openScene,
  POD_UID,
  REQUESTS,
  startSigner,
} from "../signer/signer_scene.ts";
import {
  type CertificateRequestIssuer,
  type CertificateRequestIssuerOptions,
  openCertificateRequestIssuer,
} from "./certificate_request_issuer.ts";
import { newKeyAndRequest } from "./csr.ts";
import { IssuingError, type PodIdentity } from "./issuer.ts";
import { newCa } from "./new_ca.ts";
import { decodePem } from "./pem.ts";

const POD: PodIdentity = {
  uid: POD_UID,
  namespace: "shop",
  name: "web-0",
  serviceAccount: "web",
  addresses: ["10.1.0.5"],
};

Deno.test("an agent gets a pod's certificate from the signer, thirty at once", async () => {
  await withIssuer({ ttlSeconds: 1800 }, async (issuer, server) => {
    const { csr } = await newKeyAndRequest();
    const issued = await issuer.issue(POD, csr);
    strictEqual(issued.chain.length, 1);
    match(issued.serial, /^[0-9a-f]{28,32}$/);
    const lifetime = issued.notAfter.getTime() - Date.now();
    ok(lifetime <= 1_800_000 && lifetime > 1_780_000, "the lifetime asked for");
    deepStrictEqual(await issuer.trustBundle(), decodePem(server.caPem, "CERTIFICATE"));

    const times = await Promise.all(Array.from({ length: 30 }, async () => {
      const { csr } = await newKeyAndRequest();
      const began = performance.now();
      await issuer.issue(POD, csr);
      return performance.now() - began;
    }));
    const slowest = Math.max(...times);
    ok(slowest < 1_000, `30 at once took ${slowest} ms`);
    ok(!server.requests.some((line) => line.startsWith("DELETE")));
  });
});

Deno.test("a denial reaches the agent with the signer's words", async () => {
  await withIssuer({}, async (issuer) => {
    const { csr } = await newKeyAndRequest();
    await rejects(issuer.issue({ ...POD, uid: "another" }, csr), {
      name: "IssuingError",
      reason: "denied",
      message: /PodUidMismatch: the pod of that name has another UID/,
    });
    await rejects(issuer.issue(POD, csr, AbortSignal.abort()), { name: "AbortError" });
  });
});

Deno.test("what does not fit the pod or its key is not used", async () => {
  await withIssuer({ deadlineMilliseconds: 1_000 }, async (issuer, server) => {
    const { csr } = await newKeyAndRequest();
    await issuer.issue(POD, csr);
    const good = [...server.objects].find(([path]) => path.startsWith(REQUESTS))?.[1];
    const certificate = good?.status?.certificate ?? "";
    const answer = (status: FakeObject["status"]) => {
      server.intercept = (request) =>
        request.method === "POST"
          ? Response.json({ metadata: { name: "x" }, status }, { status: 201 })
          : undefined;
    };
    answer({ certificate });
    await issuer.issue(POD, csr); // so the next ones fail for their own reasons
    for (
      const [name, pod, request, sent, message] of [
        ["another key", POD, (await newKeyAndRequest()).csr, certificate, /for another key/],
        ["other account", { ...POD, serviceAccount: "db" }, csr, certificate, /sa\/web.*sa\/db/],
        ["other address", { ...POD, addresses: ["10.1.0.6"] }, csr, certificate, /10.1.0.5, not/],
        [
          "fewer addresses",
          { ...POD, addresses: ["10.1.0.5", "fd00::5"] },
          csr,
          certificate,
          /not/,
        ],
        ["no PEM", POD, csr, btoa("hello"), /0 certificates/],
        ["no base64", POD, csr, "*", /Cannot read/],
        ["a CA", POD, csr, btoa((await newCa("cluster.local")).certificate), /another key/],
        ["huge", POD, csr, "A".repeat(200_000), /Cannot read/],
        ["many", POD, csr, btoa(atob(certificate).repeat(6)), /6 certificates/],
        ["twice", POD, csr, btoa(atob(certificate).repeat(2)), /chain is broken/],
      ] as const
    ) {
      answer({ certificate: sent });
      await rejects(issuer.issue(pod, request), (error: unknown) => {
        ok(error instanceof IssuingError, name);
        strictEqual(error.reason, "bad_certificate", `${name}: ${error}`);
        match(error.message, message, name);
        return true;
      });
    }
    const failed = { type: "Failed", reason: "SigningFailed", message: "no\nkey" };
    answer({ conditions: [failed] });
    await rejects(issuer.issue(POD, csr), { reason: "failed", message: /SigningFailed: no\\nkey/ });
  });
});

Deno.test("a root that is not in the bundle is waited for, and not trusted", async () => {
  const changes: number[] = [];
  const onTrustBundle = (roots: Uint8Array[]) => void changes.push(roots.length);
  await withIssuer({ deadlineMilliseconds: 1_000, onTrustBundle }, async (issuer, server) => {
    const { csr } = await newKeyAndRequest();
    const { chain: [der = new Uint8Array()] } = await issuer.issue(POD, csr);
    ok(der.length > 0);
    const good = [...server.objects].find(([path]) => path.startsWith(REQUESTS))?.[1];
    server.intercept = (request) =>
      request.method === "POST" ? Response.json({ ...good }, { status: 201 }) : undefined;
    const bundle = server.objects.get(BUNDLE_PATH);
    ok(bundle !== undefined);
    const foreign = (await newCa("cluster.local")).certificate;
    await signers.get(server)?.stop(); // it would put its root back
    server.put(BUNDLE_PATH, { ...bundle, data: { "ca-bundle.pem": foreign } });
    await later(200);
    await rejects(issuer.issue(POD, csr), { reason: "unknown_root" });
    const waiting = issuer.issue(POD, csr);
    await later(200);
    const both = { "ca-bundle.pem": foreign + bundle.data?.["ca-bundle.pem"] };
    server.put(BUNDLE_PATH, { ...bundle, data: both });
    await waiting;
    deepStrictEqual(changes, [1, 1, 2]);
    server.put(BUNDLE_PATH, { ...bundle, data: { "ca-bundle.pem": "" } });
    await later(200);
    strictEqual((await issuer.trustBundle()).length, 2, "an empty bundle replaces nothing");
  });
});

Deno.test("without a signer or an API server the agent gives up in time and asks at most five times a second", async () => {
  await using server = openScene();
  const { csr } = await newKeyAndRequest();
  const nobody = open(server, { deadlineMilliseconds: 300 });
  await rejects(nobody.issue(POD, csr), { reason: "unavailable", message: /after 0.3 s/ });
  await rejects(nobody.trustBundle(), { reason: "unknown_root" });
  await nobody.close();

  const issuer = open(server, { deadlineMilliseconds: 3_000 });
  let count = 0;
  server.intercept = (request) => {
    if (request.method !== "POST") return undefined;
    count++;
    return Response.json({ kind: "Status", reason: "x" }, { status: 503 });
  };
  await rejects(issuer.issue(POD, csr, AbortSignal.timeout(100)), { name: "TimeoutError" });
  count = 0;
  const pods = Array.from(
    { length: 30 },
    () => issuer.issue(POD, csr).catch((error) => error.reason),
  );
  deepStrictEqual(new Set(await Promise.all(pods)), new Set(["unavailable"]));
  ok(count <= 7, `${count} requests in 3 s`);
  await issuer.close();
});

const signers = new WeakMap<FakeApiServer, { stop: () => Promise<void> }>();

async function withIssuer(
  changes: Partial<CertificateRequestIssuerOptions>,
  use: (issuer: CertificateRequestIssuer, server: FakeApiServer) => Promise<void>,
): Promise<void> {
  await using server = openScene();
  const signer = startSigner(server);
  signers.set(server, signer);
  const issuer = open(server, changes);
  try {
    await use(issuer, server);
  } finally {
    await issuer.close();
    await signer.stop();
  }
}

function open(
  server: FakeApiServer,
  changes: Partial<CertificateRequestIssuerOptions>,
): CertificateRequestIssuer {
  const api: KubernetesApi = apiOf(server, "agent-a");
  return openCertificateRequestIssuer({
    nodeName: "node-a",
    api,
    namespace: NAMESPACE,
    signerName: "kube-gateway.io/pod",
    trustDomain: "cluster.local",
    ttlSeconds: 3600,
    leafFacts: (der) => {
      using certificate = Certificate.parse(der);
      return certificate.leafFacts();
    },
    ...changes,
  });
}

function later(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
