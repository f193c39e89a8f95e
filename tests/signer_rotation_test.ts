/**
 * The CA can be changed, by us or by its owner, and at no moment does a pod meet a certificate it
 * cannot trust.
 */
import assert from "node:assert/strict";
import { newKeyAndRequest } from "../src/identity/csr.ts";
import { newCa } from "../src/identity/new_ca.ts";
import { decodePem } from "../src/identity/pem.ts";
import { verifyIssued } from "../src/identity/verify_issued.ts";
import { fingerprint } from "../src/signer/bundle.ts";
import { make, secretOf } from "../src/signer/made_cas.ts";
import { delay } from "./lab/delay.ts";
import {
  CA,
  certificateOf,
  eventually,
  POD_UID,
  SigningCluster,
  verifyWithOpenssl,
} from "./lab/signing.ts";

const POD = {
  uid: POD_UID,
  namespace: "shop",
  name: "web-0",
  serviceAccount: "web",
  addresses: ["10.1.0.5"],
};

// In this process, because its real times are a minute and a day.
Deno.test("a new CA is propagated before it signs, and the old root goes after its last certificate", async () => {
  await using cluster = await SigningCluster.open();
  await using _signer = await cluster.runSigner({
    certificateSeconds: 2,
    propagationMilliseconds: 1_000,
  });
  const held = [await issue(cluster)];
  const [oldRoot = ""] = await roots(cluster);
  const made = await newCa("cluster.local");
  await cluster.server.patch(CA, {
    data: { "tls.crt": btoa(made.certificate), "tls.key": btoa(made.key) },
  });
  const newRoot = fingerprint(decodePem(made.certificate, "CERTIFICATE")[0] ?? new Uint8Array());

  const began = performance.now();
  const since = () => performance.now() - began;
  let [added, used, both] = [Infinity, Infinity, false];
  while (since() < 1_000 + 2_200 + 5_000 + 1_500) {
    const issued = await issue(cluster);
    held.push(issued);
    const now = await roots(cluster);
    if (now.includes(newRoot)) added = Math.min(added, since());
    if (issued.issuedBy === newRoot) used = Math.min(used, since());
    both ||= now.includes(oldRoot) && now.includes(newRoot);
    // No peer may meet a living certificate whose root the bundle lacks.
    for (const { issuedBy, expires } of held) {
      if (expires > Date.now()) {
        assert(now.includes(issuedBy), "a living certificate's root is gone");
      }
    }
    await delay(50);
  }
  assert(used - added >= 800 && used < 3_000, `used ${used - added} ms after it was added`);
  assert(both);
  assert.deepEqual(await roots(cluster), [newRoot], "the old root is gone");
});

Deno.test("a CA that cannot be used does not replace the one in use", async () => {
  await using cluster = await SigningCluster.open();
  const signer = await cluster.startSigner();
  const { issuedBy } = await issue(cluster);
  const { key } = await newCa("cluster.local");
  await cluster.server.patch(CA, { data: { "tls.key": btoa(key) } });
  await eventually(
    "probes tell it",
    async () => /^503 .*tls.key is not the key of tls.crt/.test(await signer.probe("/readyz")),
  );
  assert(!signer.log.includes("PRIVATE KEY"), "no part of a key in the log");
  assert.equal((await issue(cluster)).issuedBy, issuedBy);
});

Deno.test("a CA that its owner has put there signs from the start: cert-manager's, with an intermediate", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await using cluster = await SigningCluster.open();
    const ec = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
    const isCa = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
    const root = await make(directory, "root", `${ec} -subj /CN=root ${isCa}`);
    const by = `-CA ${directory}/root.crt -CAkey ${directory}/root.key`;
    const below = await make(directory, "below", `${ec} -subj /CN=below ${isCa} ${by}`);
    await cluster.server.create({
      apiVersion: "v1",
      kind: "Secret",
      metadata: {
        ...{ name: CA.name, namespace: CA.namespace },
        annotations: { "cert-manager.io/issuer-kind": "ClusterIssuer" },
      },
      ...secretOf({ ...below, root: root.certificate }) as object,
    });
    await cluster.startSigner();
    const chain = certificateOf(await cluster.request("agent-a"));
    assert.equal(chain.match(/BEGIN CERTIFICATE/g)?.length, 1, "the leaf alone");
    const bundle = await cluster.bundle();
    assert.deepEqual(
      decodePem(bundle, "CERTIFICATE"),
      decodePem(below.certificate, "CERTIFICATE"),
      "the CA that signs, and it alone, is trusted: its root has signed others, too",
    );
    assert.match(await verifyWithOpenssl(chain, bundle), /: OK/);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

/** A certificate as an agent takes it: checked against the bundle of now. */
async function issue(cluster: SigningCluster): Promise<{ issuedBy: string; expires: number }> {
  const { csr, publicKey } = await newKeyAndRequest();
  const request = await cluster.request("agent-a", { csr });
  const chain = decodePem(certificateOf(request), "CERTIFICATE");
  const bundle = decodePem(await cluster.bundle(), "CERTIFICATE");
  const judge = (roots: Uint8Array[]) =>
    verifyIssued(chain, { pod: POD, publicKey, trustDomain: "cluster.local", roots });
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

async function roots(cluster: SigningCluster): Promise<string[]> {
  return decodePem(await cluster.bundle(), "CERTIFICATE").map(fingerprint);
}
