/**
 * The promise: objects as large as an API server takes them, and many, cost the signer and the
 * agents little memory, and nobody who asks for something ordinary meanwhile has to wait for long.
 */
import assert from "node:assert/strict";
import { newKeyAndRequest } from "../src/identity/csr.ts";
import { encodePem } from "../src/identity/pem.ts";
import { NODE_CLAIM } from "../src/identity/signing_names.ts";
import { conditionsOf, podObject, requestBody, SigningCluster } from "./lab/signing.ts";
import type { SignerProcess } from "./lab/signer_process.ts";
import { until } from "./lab/delay.ts";
import { peakKilobytes } from "./lab/usage.ts";

Deno.test("250 requests of 1.4 MB each cost the signer little, also when it starts anew, and others are signed", async () => {
  await using cluster = await SigningCluster.open({ history: 10 });
  const early = { name: "early", uid: "uid-of-early" };
  await cluster.server.seed([podObject({
    metadata: early,
    spec: { nodeName: "node-b" },
    status: { phase: "Pending", podIPs: [] },
  })]);
  const padded = asStored(await requestBody({ pod: { uid: "another" } }));
  padded.spec.request = btoa(`${PADDING}\n${await pemRequest()}`);
  const waiting = asStored(await requestBody({ pod: { ...early, addresses: "10.9.0.5" } }));
  waiting.metadata.finalizers = manyFinalizers();
  await cluster.server.seedCopies(waiting, names("waiting", WAITING));
  await cluster.server.seedCopies(padded, names("padded", PADDED));

  const first = await cluster.startSigner({ wait: false });
  await signsAnHonestRequest(cluster, first);
  const denials = () => first.log.match(/"code":"BadRequest"/g)?.length ?? 0;
  await until(() => denials() === PADDED, 20_000, () => `${denials()} padded requests are denied`);
  assert(peakKilobytes(first.pid) < MOST_KILOBYTES, `it took ${peakKilobytes(first.pid)} kB`);
  await first.stop();

  const second = await cluster.startSigner({ wait: false });
  await signsAnHonestRequest(cluster, second);
  assert(peakKilobytes(second.pid) < MOST_KILOBYTES, `then ${peakKilobytes(second.pid)} kB`);
  for (const signer of [first, second]) assert.doesNotMatch(signer.log, /is tried again|again in/);
});

/** A fresh process may have to read all that there is first. */
async function signsAnHonestRequest(cluster: SigningCluster, signer: SignerProcess): Promise<void> {
  const honest = await cluster.request("agent-a", {}, 20_000);
  assert.deepEqual(conditionsOf(honest), ["Approved PodOnRequestersNode"], signer.log);
}

/** As the API server stores it when agent-b has filed it. */
function asStored(body: Awaited<ReturnType<typeof requestBody>>) {
  const { generateName: _generated, ...metadata } = body.metadata;
  return {
    ...body,
    metadata: { ...metadata, finalizers: [] as string[] },
    spec: {
      ...body.spec,
      username: "system:serviceaccount:kube-gateway:kube-gateway-agent",
      extra: { [NODE_CLAIM]: ["node-b"] },
    } as Record<string, unknown>,
  };
}

function names(prefix: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${prefix}-${index}`);
}

async function pemRequest(): Promise<string> {
  return encodePem([(await newKeyAndRequest()).csr], "CERTIFICATE REQUEST");
}

/** No API server bounds how many there are. */
function manyFinalizers(): string[] {
  return Array.from(
    { length: 4_500 },
    (_, index) => `${"long.".repeat(48)}example/${"x".repeat(50)}-${index}`,
  );
}

const WAITING = 230;
/** Few: to write what is decided about each costs the API server for tests much. */
const PADDED = 20;
const PADDING = "x".repeat(1_400_000);
/** Of the 512 MiB that its container may have. */
const MOST_KILOBYTES = 256 * 1024;
