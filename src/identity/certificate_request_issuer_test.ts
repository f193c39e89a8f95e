import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { delay, until } from "../../tests/lab/delay.ts";
import {
  BUNDLE,
  certificateOf,
  NAMESPACE,
  POD_UID,
  SigningCluster,
  type SigningRequest,
} from "../../tests/lab/signing.ts";
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
const REQUESTS = { resource: "certificatesigningrequests" };

Deno.test("an agent gets a pod's certificate from the signer, thirty at once", async () => {
  await using cluster = await SigningCluster.open();
  await cluster.startSigner();
  await withIssuer(cluster, { ttlSeconds: 1800 }, async (issuer) => {
    const asked = await newKeyAndRequest();
    const issued = await issuer.issue(POD, asked);
    strictEqual(issued.chain.length, 1);
    match(issued.serial, /^[0-9a-f]{28,32}$/);
    const lifetime = issued.notAfter.getTime() - Date.now();
    ok(lifetime <= 1_800_000 && lifetime > 1_780_000, "the lifetime asked for");
    deepStrictEqual(
      await issuer.trustBundle(),
      decodePem(await cluster.bundle(), "CERTIFICATE"),
    );

    const since = Date.now();
    const times = await Promise.all(Array.from({ length: 30 }, async () => {
      const asked = await newKeyAndRequest();
      const began = performance.now();
      await issuer.issue(POD, asked);
      return performance.now() - began;
    }));
    const slowest = Math.max(...times);
    ok(slowest < 5_000, `30 at once took ${slowest} ms`);
    const { username } = cluster.account("agent-a");
    const requests = await cluster.server.requests({ user: username, since });
    ok(requests.length < 30 * 12, `${requests.length} requests`);
    ok(!requests.some(({ verb }) => verb === "delete"));
    const path = new RegExp(`/${REQUESTS.resource}\\?`);
    const read = await cluster.server.requests({ user: username, verb: "watch", path });
    ok(read.length > 0);
    for (const { path } of read) {
      match(decodeURIComponent(path), /spec\.signerName=kube-gateway\.io\/pod/, "no others'");
    }
  });
});

Deno.test("a denial reaches the agent with the signer's words", async () => {
  await using cluster = await SigningCluster.open();
  await cluster.startSigner();
  await withIssuer(cluster, {}, async (issuer) => {
    const asked = await newKeyAndRequest();
    const denied = {
      name: "IssuingError",
      reason: "denied",
      message: /PodUidMismatch: the pod of that name has another UID/,
    };
    await rejects(issuer.issue({ ...POD, uid: "another" }, asked), denied);
    await issuer.issue(POD, asked);
    await rejects(issuer.issue(POD, asked, AbortSignal.abort()), { name: "AbortError" });
  });
});

Deno.test("what does not fit the pod or its key is not used", async () => {
  await using cluster = await SigningCluster.open();
  await using signer = await cluster.runSigner();
  const asked = await newKeyAndRequest();
  const good = certificateOf(await cluster.request("agent-a", { csr: asked.csr }));
  await signer[Symbol.asyncDispose](); // from now on the test plays the signer, a bad one
  for (
    const [name, pod, request, sent, message] of [
      ["another key", POD, await newKeyAndRequest(), good, /for another key/],
      ["other account", { ...POD, serviceAccount: "db" }, asked, good, /sa\/web.*sa\/db/],
      ["other address", { ...POD, addresses: ["10.1.0.6"] }, asked, good, /10.1.0.5, not/],
      ["fewer addresses", { ...POD, addresses: ["10.1.0.5", "fd00::5"] }, asked, good, /not/],
      ["a CA", POD, asked, (await newCa("cluster.local")).certificate, /another key/],
      ["huge", POD, asked, good + "x".repeat(100_000), /Cannot read/],
      ["many", POD, asked, good.repeat(6), /6 certificates/],
    ] as const
  ) {
    await withIssuer(cluster, {}, async (issuer) => {
      const [issued] = await Promise.all([
        issuer.issue(pod, request).catch((error) => error),
        answer(cluster, { certificate: btoa(sent) }),
      ]);
      ok(issued instanceof IssuingError, name);
      strictEqual(issued.reason, "bad_certificate", `${name}: ${issued}`);
      match(issued.message, message, name);
    });
  }
  await withIssuer(cluster, {}, async (issuer) => {
    const failed = { type: "Failed", status: "True", reason: "SigningFailed", message: "no\nkey" };
    const refused = rejects(issuer.issue(POD, asked), {
      reason: "failed",
      message: /SigningFailed: no\\nkey/,
    });
    await Promise.all([refused, answer(cluster, { conditions: [failed] })]);
  });
});

Deno.test("a root that is not in the bundle is waited for, and not trusted", async () => {
  await using cluster = await SigningCluster.open();
  await using signer = await cluster.runSigner();
  const asked = await newKeyAndRequest();
  const certificate = btoa(certificateOf(await cluster.request("agent-a", { csr: asked.csr })));
  await signer[Symbol.asyncDispose](); // it would put its root back
  const own = await cluster.bundle();
  const foreign = (await newCa("cluster.local")).certificate;
  const setBundle = (pem: string) =>
    cluster.server.patch(BUNDLE, { data: { "ca-bundle.pem": pem } });
  const changes: number[] = [];
  const onTrustBundle = (roots: Uint8Array[]) => void changes.push(roots.length);
  await setBundle(foreign);
  await withIssuer(cluster, { deadlineMilliseconds: 1_000 }, async (issuer) => {
    const refused = rejects(issuer.issue(POD, asked), { reason: "unknown_root" });
    await Promise.all([refused, answer(cluster, { certificate })]);
  });
  await withIssuer(cluster, { onTrustBundle }, async (issuer) => {
    const waiting = issuer.issue(POD, asked);
    await answer(cluster, { certificate });
    await delay(300);
    await setBundle(foreign + own);
    await waiting;
    deepStrictEqual(changes, [1, 2]);
    await setBundle("");
    await delay(300);
    strictEqual((await issuer.trustBundle()).length, 2, "an empty bundle replaces nothing");
  });
});

Deno.test("a trust bundle that is missing is said to be that, whether there was one or not", async () => {
  await using cluster = await SigningCluster.open();
  await withIssuer(cluster, {}, async (issuer) => {
    const says = (what: RegExp) =>
      until(
        () => what.test(issuer.trustProblem?.() ?? ""),
        10_000,
        () => `${issuer.trustProblem?.()}`,
      );
    await says(
      /^ConfigMap kube-gateway\/kube-gateway-trust-bundle is missing .*Deployment.*no good one yet$/,
    );
    await using signer = await cluster.runSigner();
    await until(() => issuer.trustProblem?.() === undefined, 10_000, () => "it is still missing");
    await signer[Symbol.asyncDispose](); // it would make it again
    await cluster.server.delete(BUNDLE);
    await says(/is missing .*the last good one stays in use$/);
  });
});

Deno.test("a signer that is late, and an API server that is away meanwhile, only delay a certificate", async () => {
  await using cluster = await SigningCluster.open();
  await withIssuer(cluster, {}, async (issuer) => {
    const asked = await newKeyAndRequest();
    const waiting = issuer.issue(POD, asked);
    await delay(300);
    await cluster.server.kill();
    const filedInOutage = issuer.issue(POD, await newKeyAndRequest());
    await delay(1_000);
    await cluster.server.restart();
    await cluster.startSigner();
    await Promise.all([waiting, filedInOutage]);
    strictEqual((await cluster.server.list(REQUESTS.resource)).length, 2, "one request each");
  });
});

Deno.test("without a signer or an API server the agent gives up in time, and asks seldom", async () => {
  await using cluster = await SigningCluster.open();
  const asked = await newKeyAndRequest();
  await withIssuer(cluster, { deadlineMilliseconds: 300 }, async (nobody) => {
    await rejects(nobody.issue(POD, asked), { reason: "unavailable", message: /after 0.3 s/ });
    await rejects(nobody.trustBundle(), { reason: "unknown_root" });
  });
  await withIssuer(cluster, { deadlineMilliseconds: 3_000 }, async (issuer) => {
    await cluster.server.misbehave({ path: "/certificatesigningrequests", status: 503 });
    await rejects(issuer.issue(POD, asked, AbortSignal.timeout(100)), { name: "TimeoutError" });
    const since = Date.now();
    const pods = Array.from({ length: 30 }, (_, i) => ({ ...POD, uid: `uid-${i}` }));
    const reasons = await Promise.all(
      pods.map((pod) => issuer.issue(pod, asked).catch((error) => error.reason)),
    );
    deepStrictEqual(new Set(reasons), new Set(["unavailable"]));
    const { length } = await cluster.server.requests({ path: /signingrequests/, since });
    ok(length <= 9, `${length} requests in 3 s`);
  });
});

/** Writes the status of the next request that nobody has answered. */
async function answer(
  cluster: SigningCluster,
  status: { certificate?: string; conditions?: object[] },
): Promise<void> {
  for (;;) {
    const all = await cluster.server.list<SigningRequest>(REQUESTS.resource);
    const open = all.find(({ status }) => !status?.certificate && !status?.conditions);
    if (open !== undefined) {
      const { name } = open.metadata;
      await cluster.server.patch({ ...REQUESTS, name }, { status }, "status");
      return;
    }
    await delay(10);
  }
}

async function withIssuer(
  cluster: SigningCluster,
  changes: Partial<CertificateRequestIssuerOptions>,
  use: (issuer: CertificateRequestIssuer) => Promise<void>,
): Promise<void> {
  const issuer = openCertificateRequestIssuer({
    nodeName: "node-a",
    api: await cluster.api("agent-a"),
    namespace: NAMESPACE,
    signerName: "kube-gateway.io/pod",
    trustDomain: "cluster.local",
    ttlSeconds: 3600,
    ...changes,
  });
  try {
    await use(issuer);
  } finally {
    await issuer.close();
  }
}
