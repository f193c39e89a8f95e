import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { ApiError } from "../kubernetes/errors.ts";
import { fingerprint, readBundle } from "./bundle.ts";
import { BundleStore } from "./bundle_store.ts";
import { type ClusterCa, openCa } from "./ca.ts";
import { MemoryCluster, never } from "./cluster_for_tests.ts";
import { Rotation } from "./rotation.ts";
import { delay } from "../waiting.ts";

const BUNDLE = "/api/v1/namespaces/gw/configmaps/kube-gateway-trust-bundle";
const TTL_SECONDS = 3_600;

Deno.test("the first root signs at once, the next one when all may know it", async () => {
  const { cluster, rotation, first, second } = await scene({ propagationMilliseconds: 150 });
  strictEqual(await rotation.authority(1_000), first);
  rotation.offer(second);
  strictEqual(await rotation.authority(1_000), first, "nobody knows the new root yet");
  deepStrictEqual(roots(cluster), [idOf(first), idOf(second)]);
  const began = performance.now();
  while (await rotation.authority(1_000) === first) await delay(5);
  ok(performance.now() - began >= 100);
  strictEqual(await rotation.authority(1_000), second);
  deepStrictEqual(roots(cluster), [idOf(first), idOf(second)], "the old one has certificates");
});

Deno.test("before a CA is given out the bundle has promised to keep its root for long enough", async () => {
  const { cluster, rotation } = await scene();
  await rotation.authority(1_000);
  const [record] = readBundle(cluster.objects.get(BUNDLE));
  ok((record?.neededUntil?.getTime() ?? 0) >= Date.now() + TTL_SECONDS * 1_000);
});

Deno.test("a burst of requests is one write, and what comes after it none", async () => {
  const { cluster, rotation, first } = await scene();
  const given = await Promise.all(Array.from({ length: 30 }, () => rotation.authority(1_000)));
  ok(given.every((ca) => ca === first));
  strictEqual(cluster.asked.filter((line) => !line.startsWith("GET")).length, 2, "made, promised");
  const before = cluster.asked.length;
  await rotation.authority(1_000);
  strictEqual(cluster.asked.length, before);
});

Deno.test("while the bundle cannot be read or written no CA is given out, and then one is", async () => {
  for (const method of ["GET", "POST"]) {
    for (
      const answer of [() => Promise.reject(new ApiError(500, "", "disk full")), never]
    ) {
      const { cluster, rotation, first } = await scene();
      cluster.before = (asked) => asked === method ? answer() : undefined;
      await rejects(rotation.authority(30), /disk full|no answer/);
      cluster.before = () => {};
      strictEqual(await rotation.authority(1_000), first);
    }
  }
});

Deno.test("one request that fails does not hold up the others", async () => {
  const { cluster, rotation, first } = await scene();
  await rotation.review(1_000);
  let failures = 1;
  cluster.before = (method) => {
    if (method === "PUT" && failures-- > 0) throw new ApiError(500, "", "once");
  };
  const settled = await Promise.allSettled([rotation.authority(1_000), rotation.authority(1_000)]);
  deepStrictEqual(settled.map(({ status }) => status), ["rejected", "fulfilled"]);
  strictEqual(await rotation.authority(1_000), first);
});

Deno.test("writes of others are kept, and a conflict is read anew", async () => {
  const { cluster, rotation, first } = await scene();
  await rotation.review(1_000);
  cluster.before = (method) => {
    if (method !== "PUT") return;
    cluster.before = () => {};
    const bundle = cluster.objects.get(BUNDLE);
    ok(bundle);
    cluster.seed(BUNDLE, { ...bundle, data: { ...bundle.data, note: "somebody's" } });
  };
  strictEqual(await rotation.authority(1_000), first);
  strictEqual(cluster.objects.get(BUNDLE)?.data.note, "somebody's");
});

Deno.test("a root that somebody has taken out comes back before it signs again", async () => {
  const { cluster, rotation, first } = await scene({ propagationMilliseconds: 60_000 });
  await rotation.authority(1_000);
  cluster.remove(BUNDLE);
  await rotation.review(1_000);
  deepStrictEqual(roots(cluster), [idOf(first)]);
  strictEqual(await rotation.authority(1_000), first);
});

Deno.test("a bundle that is damaged is nobody's to overwrite, and the last good one stays in use", async () => {
  for (
    const pem of [
      "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
      "-----BEGIN CERTIFICATE-----\n",
      undefined, // one line of the block is lost
    ]
  ) {
    const { cluster, rotation, first } = await scene();
    await rotation.review(1_000);
    const good = cluster.objects.get(BUNDLE)?.data["ca-bundle.pem"];
    const data = { "ca-bundle.pem": pem ?? good.split("\n").toSpliced(3, 1).join("\n") };
    cluster.seed(BUNDLE, { ...cluster.objects.get(BUNDLE), data });
    await rotation.review(1_000);
    match(rotation.damage ?? "", /kube-gateway-trust-bundle is damaged/);
    strictEqual(await rotation.authority(1_000), first);
    deepStrictEqual(cluster.objects.get(BUNDLE)?.data, data);
    const another = new Rotation(new BundleStore(cluster, "gw"), {
      propagationMilliseconds: 0,
      ttlSeconds: TTL_SECONDS,
    });
    another.offer(first);
    await rejects(another.authority(1_000), /is damaged/, "who has never read a good one");
    cluster.seed(BUNDLE, {
      ...cluster.objects.get(BUNDLE),
      data: { "ca-bundle.pem": good },
    });
    await rotation.review(1_000);
    strictEqual(rotation.damage, undefined);
    strictEqual(await rotation.authority(1_000), first);
  }
});

Deno.test("a CA that has expired, or is the third that nobody knows yet, leaves the one before it", async () => {
  const { rotation, first, second } = await scene({ propagationMilliseconds: 0 });
  await rotation.authority(1_000);
  const ended = { notAfter: { value: new Date(Date.now() - 1_000) } };
  rotation.offer({ ...second, certificate: Object.create(second.certificate, ended) });
  strictEqual(await rotation.authority(1_000), first);

  const young = await scene();
  await young.rotation.authority(1_000);
  for (let count = 0; count < 3; count++) young.rotation.offer(await newCa());
  strictEqual(await young.rotation.authority(1_000), young.first);
});

Deno.test("the Secret's CA that is offered again changes nothing, and costs no request", async () => {
  const { cluster, rotation, first } = await scene();
  await rotation.authority(1_000);
  const before = cluster.asked.length;
  rotation.offer(first);
  strictEqual(await rotation.authority(1_000), first);
  strictEqual(cluster.asked.length, before);
});

Deno.test("after a review that has failed the bundle is read before a CA is given out", async () => {
  const { cluster, rotation, first } = await scene();
  await rotation.authority(1_000);
  cluster.remove(BUNDLE);
  cluster.before = () => Promise.reject(new ApiError(500, "", "away"));
  await rejects(rotation.review(1_000), /away/);
  cluster.before = () => {};
  strictEqual(await rotation.authority(1_000), first);
  deepStrictEqual(roots(cluster), [idOf(first)], "its root is there again");
});

Deno.test("who waits for his turn waits no longer than he can", async () => {
  const { cluster, rotation } = await scene();
  cluster.before = never;
  const slow = rejects(rotation.authority(100), /no answer/);
  await rejects(rotation.authority(20), /the trust bundle was busy for 0.02 s/);
  await slow;
});

Deno.test("the bundle that is used while the ConfigMap is damaged is the last one, not the first", async () => {
  const { cluster, rotation, second } = await scene({ propagationMilliseconds: 0 });
  await rotation.authority(1_000);
  rotation.offer(second);
  await rotation.review(1_000);
  const data = { "ca-bundle.pem": "-----BEGIN CERTIFICATE-----\n" };
  cluster.seed(BUNDLE, { ...cluster.objects.get(BUNDLE), data });
  await rotation.review(1_000);
  strictEqual(await rotation.authority(1_000), second);
});

Deno.test("without a CA there is none to give, and it says so", async () => {
  const cluster = new MemoryCluster();
  const rotation = new Rotation(new BundleStore(cluster, "gw"), {
    propagationMilliseconds: 0,
    ttlSeconds: TTL_SECONDS,
  });
  const error = await rotation.authority(1_000).catch((error) => error);
  strictEqual(error.reason, "ca_unusable");
  match(error.message, /CA has not been read/);
});

async function scene({ propagationMilliseconds = 60_000 } = {}) {
  const cluster = new MemoryCluster();
  const rotation = new Rotation(new BundleStore(cluster, "gw"), {
    propagationMilliseconds,
    ttlSeconds: TTL_SECONDS,
  });
  const [first, second] = await Promise.all([newCa(), newCa()]);
  rotation.offer(first);
  return { cluster, rotation, first, second };
}

async function newCa(): Promise<ClusterCa> {
  return await openCa(new MemoryCluster(), "gw", "cluster.local");
}

/** The roots in the bundle, as it is stored. */
function roots(cluster: MemoryCluster): string[] {
  return readBundle(cluster.objects.get(BUNDLE)).map(({ der }) => fingerprint(der));
}

function idOf(ca: ClusterCa): string {
  return fingerprint(ca.root);
}
