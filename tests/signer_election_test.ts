/**
 * Several signers are as one: one CA, one that acts, another when it is gone, and none that acts
 * too long.
 */
import assert from "node:assert/strict";
import {
  BUNDLE,
  CA,
  certificateOf,
  eventually,
  SigningCluster,
  verifyWithOpenssl,
} from "./lab/signing.ts";

Deno.test("signers that start at once make one CA, and when the leader is killed another issues", async () => {
  await using cluster = await SigningCluster.open();
  const signers = await Promise.all([1, 2, 3].map(() => cluster.startSigner()));
  const made = await cluster.server.requests({ verb: "create", path: /\/secrets/ });
  assert.equal(made.filter(({ status }) => status === 201).length, 1, "one Secret");
  assert.match(await issued(cluster), /: OK/);
  const bundle = await cluster.bundle();
  assert.equal(bundle.match(/BEGIN CERTIFICATE/g)?.length, 1);

  const before = await cluster.leader();
  const probes = await Promise.all(signers.map((signer) => signer.probe("/readyz")));
  assert.deepEqual([...probes].sort(), [
    "200 ok, leading",
    "200 ok, standing by",
    "200 ok, standing by",
  ]);
  await signers[probes.indexOf("200 ok, leading")]?.stop("SIGKILL");
  const began = performance.now();
  assert.match(await issued(cluster, 25_000), /: OK/);
  const seconds = (performance.now() - began) / 1000;
  // Its duration from the last renewal that was seen, and one round of a candidate.
  assert(seconds < 15 + 2.4 + 1, `it took ${seconds} s`);
  assert.notEqual(await cluster.leader(), before);
  assert.equal(await cluster.bundle(), bundle, "the same CA");
});

Deno.test("a signer that is told to stop gives the lease back at once", async () => {
  await using cluster = await SigningCluster.open();
  const first = await cluster.startSigner();
  assert.match(await issued(cluster), /: OK/);
  await cluster.startSigner();
  assert.equal(await first.stop(), 0);
  const began = performance.now();
  assert.match(await issued(cluster), /: OK/);
  assert(performance.now() - began < 4_000, "one round of a candidate");
});

Deno.test("a leader that was frozen writes nothing when another has taken its lease", async () => {
  await using cluster = await SigningCluster.open();
  const first = await cluster.startSigner();
  assert.match(await issued(cluster), /: OK/);
  const before = await cluster.leader();
  // Frozen in the middle of its work: the answers to what it has read come later than all else.
  const slow = await cluster.server.misbehave({ path: "/pods/", verb: "get", delayMs: 500 });
  const names = await Promise.all(Array.from({ length: 10 }, () => cluster.file("agent-a")));
  await eventually("it reads", async () => (await cluster.server.state()).openConnections > 3);
  first.freeze();
  await slow[Symbol.asyncDispose]();
  await cluster.startSigner();
  await eventually("another leads", async () => await cluster.leader() !== before, 20_000);
  for (const name of names) {
    assert(certificateOf(await cluster.settled(name)), "issued by the other");
  }
  const since = Date.now();
  first.thaw();
  await eventually(
    "it stands by",
    async () => await first.probe("/readyz") === "200 ok, standing by",
  );
  const writes = await cluster.server.requests({ verb: "patch", path: /signingrequests/, since });
  assert.deepEqual(writes, []);
});

Deno.test("a signer says what it lacks, and goes on when it has it", async () => {
  await using cluster = await SigningCluster.open();
  const broken = await cluster.server.misbehave({ path: "/secrets", status: 503 });
  const signer = await cluster.startSigner({ wait: false });
  await eventually("it has tried", async () => {
    const said = await signer.probe("/readyz").catch(() => "");
    return /^503 .*secrets.*503/.test(said);
  });
  assert.equal(await signer.probe("/healthz"), "200 ok");
  assert.match(await signer.probe("/metrics"), /^404/);
  await broken[Symbol.asyncDispose]();
  await signer.ready();
  assert.match(await issued(cluster), /: OK/);
});

Deno.test("an API server that is killed, or answers 500 and 409, delays a certificate and does not prevent it", async () => {
  await using cluster = await SigningCluster.open();
  await cluster.startSigner();
  assert.match(await issued(cluster), /: OK/);
  const path = "/certificatesigningrequests/.";
  for (const status of [500, 409]) {
    await cluster.server.misbehave({ path, verb: "patch", status, times: 3 });
  }
  assert.match(await issued(cluster, 15_000), /: OK/);

  await cluster.server.kill();
  await cluster.server.restart();
  assert.match(await issued(cluster, 15_000), /: OK/);
});

Deno.test("a bundle that somebody has deleted is written again, and a CA that is deleted is not made again", async () => {
  await using cluster = await SigningCluster.open();
  const signer = await cluster.startSigner();
  assert.match(await issued(cluster), /: OK/);
  const before = await cluster.bundle();
  await cluster.server.delete(CA);
  await cluster.server.delete(BUNDLE);
  await eventually("the bundle is back", async () => await cluster.bundle() !== "", 15_000);
  assert.equal(await cluster.bundle(), before);
  assert.match(await issued(cluster), /: OK/);
  await eventually("it says so", () => signer.log.includes("the CA's Secret is gone"));
  assert.deepEqual(await cluster.server.list("secrets", "kube-gateway"), []);
});

/** What `openssl verify` says of a certificate that is asked for now, and of the bundle. */
async function issued(cluster: SigningCluster, timeoutMs?: number): Promise<string> {
  const request = await cluster.request("agent-a", {}, timeoutMs);
  return await verifyWithOpenssl(certificateOf(request), await cluster.bundle());
}
