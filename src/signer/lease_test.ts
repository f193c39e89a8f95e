import { ok, strictEqual } from "node:assert/strict";
import { delay } from "../../tests/lab/delay.ts";
import { eventually, LEASE, SigningCluster } from "../../tests/lab/signing.ts";
import { ApiError } from "../kubernetes/errors.ts";
import { openKubernetesApi } from "../kubernetes/open.ts";
import { MemoryCluster, never } from "./cluster_for_tests.ts";
import { Candidacy } from "./lease.ts";

interface Lease {
  spec?: { holderIdentity?: string; leaseTransitions?: number };
}

const WHERE = { namespace: LEASE.namespace, name: LEASE.name };
const PATH = `/apis/coordination.k8s.io/v1/namespaces/${WHERE.namespace}/leases/${WHERE.name}`;
const TIMES = { duration: 1_000, renewDeadline: 500, retry: 50 };

Deno.test("of many candidates for a free lease exactly one leads, and goes on leading", async () => {
  await using cluster = await SigningCluster.open();
  let begun = 0;
  const candidates = await Promise.all(
    Array.from({ length: 6 }, (_, i) => run(cluster, `c-${i}`, () => begun++)),
  );
  try {
    for (let i = 0; i < 60; i++) {
      ok(leaders(candidates) <= 1);
      await delay(25);
    }
    strictEqual(leaders(candidates), 1);
    strictEqual(begun, 1);
    strictEqual((await cluster.server.get<Lease>(LEASE)).spec?.leaseTransitions, 0);
  } finally {
    await close(candidates);
  }
});

Deno.test("a leader that cannot renew stops before another begins", async () => {
  await using cluster = await SigningCluster.open();
  const account = await cluster.server.user("other", ["system:masters"]);
  using api = await openKubernetesApi(account.kubeconfig);
  const old = new Candidacy({ api, ...WHERE, identity: "old", times: TIMES });
  await eventually("old leads", () => old.remaining() > 0);
  const next = await run(cluster, "next");
  await cluster.server.misbehave({ user: account.username, status: 503 });
  try {
    let idle = 0;
    while (next.remaining() === 0) {
      if (old.remaining() === 0) idle++;
      await delay(5);
    }
    strictEqual(old.remaining(), 0);
    ok(idle > 10, "a while without any");
  } finally {
    await close([old, next]);
  }
});

Deno.test("only what changes here counts: another's clock does not", async () => {
  await using cluster = await SigningCluster.open();
  const lease = (renewTime: string) => ({
    apiVersion: "coordination.k8s.io/v1",
    kind: "Lease",
    metadata: { name: LEASE.name, namespace: LEASE.namespace },
    spec: { holderIdentity: "other", leaseDurationSeconds: 1, renewTime },
  });
  await cluster.server.seed([lease("2001-01-01T00:00:00.000000Z")]);
  const candidate = await run(cluster, "me");
  try {
    for (let i = 0; i < 8; i++) {
      await delay(200);
      strictEqual(candidate.remaining(), 0, "its holder renews it");
      await cluster.server.seed([lease("2001-01-01T00:00:00.000000Z")]);
    }
    await cluster.server.seed([lease("2099-01-01T00:00:00.000000Z")]);
    await eventually("the lease is taken", () => candidate.remaining() > 0, 2_500);
    strictEqual((await cluster.server.get<Lease>(LEASE)).spec?.leaseTransitions, 1);
  } finally {
    await candidate.close();
  }
  strictEqual((await cluster.server.get<Lease>(LEASE)).spec?.holderIdentity, "", "given back");
});

Deno.test("a renewal counts from when it began, however late it is answered", async () => {
  const cluster = new MemoryCluster();
  const candidate = new Candidacy({ api: cluster, ...WHERE, identity: "me", times: TIMES });
  try {
    await eventually("it leads", () => candidate.remaining() > 0);
    let began = performance.now();
    let renewals = 0;
    cluster.before = (method) => {
      if (method === "GET") began = performance.now();
      else renewals++;
      return delay(TIMES.renewDeadline / 4);
    };
    await eventually("renewals are answered late", () => {
      const most = began + TIMES.renewDeadline - performance.now();
      ok(renewals === 0 || candidate.remaining() <= most + 1);
      return renewals > 4;
    });
    cluster.before = () => Promise.reject(new ApiError(503, "", "away"));
    await eventually("it leads no more", () => candidate.remaining() === 0, 2 * TIMES.duration);
    cluster.before = () => {};
    await eventually("it leads again", () => candidate.remaining() > 0);
  } finally {
    await candidate.close();
  }
});

Deno.test("of two that write at once one leads: a conflict is a defeat", async () => {
  const cluster = new MemoryCluster();
  cluster.before = (method) => {
    if (method !== "POST" || cluster.objects.has(PATH)) return;
    cluster.seed(PATH, { spec: { holderIdentity: "faster", leaseDurationSeconds: 3_600 } });
  };
  let led = 0;
  const onLead = () => led++;
  const candidate = new Candidacy({ api: cluster, ...WHERE, identity: "me", times: TIMES, onLead });
  await eventually("it has lost", () => cluster.asked.length > 4);
  strictEqual(candidate.remaining() + led, 0);
  await candidate.close();
  strictEqual(cluster.objects.get(PATH)?.spec.holderIdentity, "faster", "not given back");
});

Deno.test("a leader whose renewal meets another's write leads no more at once", async () => {
  const cluster = new MemoryCluster();
  const times = { duration: 60_000, renewDeadline: 50_000, retry: 20 };
  const candidate = new Candidacy({ api: cluster, ...WHERE, identity: "me", times });
  await eventually("it leads", () => candidate.remaining() > 0);
  let left: number | undefined;
  cluster.before = (method) => {
    if (method !== "PUT") return;
    cluster.seed(PATH, { spec: { holderIdentity: "other", leaseDurationSeconds: 3_600 } });
    cluster.before = () => void (left ??= candidate.remaining());
  };
  await eventually("it has lost and looks again", () => left !== undefined, 5_000);
  strictEqual(left, 0, "not when it looks again");
  await candidate.close();
});

Deno.test("a holder is believed for as long as its lease says, not for as long as we would say", async () => {
  const cluster = new MemoryCluster();
  cluster.seed(PATH, { spec: { holderIdentity: "other", leaseDurationSeconds: 3_600 } });
  const times = { duration: 20, renewDeadline: 15, retry: 10 };
  const candidate = new Candidacy({ api: cluster, ...WHERE, identity: "me", times });
  await eventually("it has looked for longer", () => cluster.asked.length > 8);
  strictEqual(candidate.remaining(), 0);
  strictEqual(cluster.asked.some((line) => line.startsWith("PUT")), false);
  await candidate.close();
});

Deno.test("a request that is never answered is given up before the lease could be lost by it", async () => {
  const cluster = new MemoryCluster();
  cluster.before = () => {
    cluster.before = () => {};
    return never();
  };
  const candidate = new Candidacy({ api: cluster, ...WHERE, identity: "me", times: TIMES });
  await eventually("it leads", () => candidate.remaining() > 0, 4_000);
  await candidate.close();
});

Deno.test("who closes leads no more from then on, and gives back only what is still his", async () => {
  const cluster = new MemoryCluster();
  const mine = new Candidacy({ api: cluster, ...WHERE, identity: "me", times: TIMES });
  await eventually("it leads", () => mine.remaining() > 0);
  const { acquireTime, renewTime } = cluster.objects.get(PATH)?.spec;
  const renewed = () => cluster.objects.get(PATH)?.spec;
  await eventually("it is renewed", () => renewed().renewTime !== renewTime);
  strictEqual(renewed().acquireTime, acquireTime, "held since then");
  cluster.seed(PATH, { spec: { holderIdentity: "other", leaseDurationSeconds: 3_600 } });
  const closing = mine.close();
  strictEqual(mine.remaining(), 0);
  await closing;
  strictEqual(cluster.objects.get(PATH)?.spec.holderIdentity, "other");
});

async function run(
  cluster: SigningCluster,
  identity: string,
  onLead: () => void = () => {},
): Promise<Candidacy> {
  const api = await cluster.api("signer");
  return new Candidacy({ api, ...WHERE, identity, times: TIMES, onLead });
}

function leaders(candidates: Candidacy[]): number {
  return candidates.filter((candidate) => candidate.remaining() > 0).length;
}

async function close(candidates: Candidacy[]): Promise<void> {
  await Promise.all(candidates.map((candidate) => candidate.close()));
}
