import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { newKeyAndRequest } from "../identity/csr.ts";
import { newCa } from "../identity/new_ca.ts";
import { decodePem } from "../identity/pem.ts";
import { verifyIssued } from "../identity/verify_issued.ts";
import { Certificate } from "../native/certificate.ts";
import { fingerprint } from "./bundle.ts";
import type { FakeApiServer } from "./fake_api_server.ts";
import {
  apiOf,
  BUNDLE_PATH,
  fileRequest,
  LEASE_PATH,
  openScene,
  POD_UID,
  requestBody,
  SECRET_PATH,
  startSigner,
  until,
} from "./signer_scene.ts";

const POD = {
  uid: POD_UID,
  namespace: "shop",
  name: "web-0",
  serviceAccount: "web",
  addresses: ["10.1.0.5"],
};

Deno.test("a new CA is propagated before it signs, and the old root goes after its last certificate", async () => {
  await using server = openScene();
  const signer = startSigner(server, { certificateSeconds: 2, propagationMilliseconds: 1_000 });
  try {
    const held = [await issue(server)];
    const [oldRoot = ""] = roots(server);
    const made = await newCa("cluster.local");
    const secret = server.objects.get(SECRET_PATH);
    ok(secret !== undefined);
    const data = { "tls.crt": btoa(made.certificate), "tls.key": btoa(made.key) };
    server.put(SECRET_PATH, { ...secret, data });
    const newRoot = fingerprint(decodePem(made.certificate, "CERTIFICATE")[0] ?? new Uint8Array());

    const began = performance.now();
    const since = () => performance.now() - began;
    let [added, used, both] = [Infinity, Infinity, false];
    while (since() < 1_000 + 2_200 + 5_000 + 1_500) {
      const issued = await issue(server);
      held.push(issued);
      const now = roots(server);
      if (now.includes(newRoot)) added = Math.min(added, since());
      if (issued.issuedBy === newRoot) used = Math.min(used, since());
      both ||= now.includes(oldRoot) && now.includes(newRoot);
      // No peer may meet a living certificate whose root the bundle lacks.
      for (const { issuedBy, expires } of held) {
        if (expires > Date.now()) ok(now.includes(issuedBy), "a living certificate's root is gone");
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    ok(used - added >= 800 && used < 3_000, `used ${used - added} ms after it was added`);
    ok(both);
    deepStrictEqual(roots(server), [newRoot], "the old root is gone");
  } finally {
    await signer.stop();
  }
});

Deno.test("a CA that cannot be used does not replace the one in use", async () => {
  await using server = openScene();
  const signer = startSigner(server);
  try {
    const { issuedBy } = await issue(server);
    const secret = server.objects.get(SECRET_PATH);
    ok(secret?.data !== undefined);
    const { key } = await newCa("cluster.local");
    server.put(SECRET_PATH, { ...secret, data: { ...secret.data, "tls.key": btoa(key) } });
    await until("reported", () => signer.health.problem !== undefined);
    match(signer.health.problem ?? "", /tls.key is not the key of tls.crt/);
    strictEqual((await issue(server)).issuedBy, issuedBy);
    server.remove(SECRET_PATH);
    strictEqual((await issue(server)).issuedBy, issuedBy);
  } finally {
    await signer.stop();
  }
});

Deno.test("signers that start at once make one CA and one leads; when it is cut off another takes over", async () => {
  for (let round = 0; round < 3; round++) {
    await using server = openScene();
    const identities = ["one", "two", "three"];
    for (const name of identities) server.users.set(name, { username: name });
    const signers = identities.map((identity) =>
      startSigner(server, { identity, api: apiOf(server, identity) })
    );
    try {
      const { issuedBy } = await issue(server);
      const leader = () => String(server.objects.get(LEASE_PATH)?.spec?.holderIdentity);
      const old = leader();
      ok(identities.includes(old));
      let writes = 0; // of the one that is cut off from its lease but not from the rest
      server.intercept = (request, path, user) => {
        if (user !== old) return undefined;
        if (path === LEASE_PATH) return new Response(null, { status: 503 });
        if (request.method !== "GET" && leader() !== old) writes++;
        return undefined;
      };
      strictEqual((await issue(server)).issuedBy, issuedBy);
      await until("another leads", () => leader() !== old);
      strictEqual((await issue(server)).issuedBy, issuedBy, "the same CA");
      strictEqual(writes, 0, "a leader without its lease acts no more");
    } finally {
      await Promise.all(signers.map((signer) => signer.stop()));
    }
  }
});

Deno.test("a signer that stops gives the lease back at once", async () => {
  await using server = openScene();
  const leaseTimes = { duration: 60_000, renewDeadline: 40_000, retry: 50 };
  const first = startSigner(server, { leaseTimes });
  await issue(server);
  const second = startSigner(server, { leaseTimes });
  await first.stop();
  try {
    await issue(server);
  } finally {
    await second.stop();
  }
});

/** A certificate as an agent takes it: checked against the bundle of now. */
async function issue(server: FakeApiServer): Promise<{ issuedBy: string; expires: number }> {
  const { csr } = await newKeyAndRequest();
  const request = await fileRequest(server, "agent-a", await requestBody({ csr }));
  const chain = decodePem(atob(request?.status?.certificate ?? ""), "CERTIFICATE");
  const bundle = decodePem(bundleOf(server), "CERTIFICATE");
  const leafFacts = (der: Uint8Array<ArrayBuffer>) => {
    using certificate = Certificate.parse(der);
    return certificate.leafFacts();
  };
  const judge = (roots: Uint8Array[]) =>
    verifyIssued(chain, { pod: POD, csr, trustDomain: "cluster.local", roots, leafFacts });
  const { notAfter } = judge(bundle);
  const issuer = bundle.find((root) => {
    try {
      return judge([root]) !== undefined;
    } catch {
      return false;
    }
  });
  return { issuedBy: fingerprint(issuer ?? new Uint8Array()), expires: notAfter.getTime() };
}

function roots(server: FakeApiServer): string[] {
  return decodePem(bundleOf(server), "CERTIFICATE").map(fingerprint);
}

function bundleOf(server: FakeApiServer): string {
  return server.objects.get(BUNDLE_PATH)?.data?.["ca-bundle.pem"] ?? "";
}
