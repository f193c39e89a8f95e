import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { until } from "../../tests/lab/delay.ts";
import { NAMESPACE, POD_UID, podObject, requestBody } from "../../tests/lab/signing.ts";
import { DENY_LIST } from "../cluster/deny_list.ts";
import { type SignerWord, WORD_ANNOTATION } from "../identity/signer_word.ts";
import { DEFAULT_SIGNER_NAME, REQUESTS_PATH } from "../identity/signing_names.ts";
import { ApiError } from "../kubernetes/errors.ts";
import { MemoryCluster, never } from "./cluster_for_tests.ts";
import { endsSoon, secretOf } from "./made_cas.ts";
import { LEASE, runSigner, SignerHealth } from "./signer.ts";
import { delay } from "../waiting.ts";

const AGENT = `system:serviceaccount:${NAMESPACE}:kube-gateway-agent`;
const POD = "/api/v1/namespaces/shop/pods/web-0";
const SECRET = `/api/v1/namespaces/${NAMESPACE}/secrets/kube-gateway-ca`;
const BUNDLE_PATH = `/api/v1/namespaces/${NAMESPACE}/configmaps/kube-gateway-trust-bundle`;
const LEASE_TIMES = { duration: 500, renewDeadline: 250, retry: 30 };
const LEASE_PATH = `/apis/coordination.k8s.io/v1/namespaces/${NAMESPACE}/leases/${LEASE}`;

Deno.test("who stands by knows the requests that wait, and works on them when it leads", async () => {
  const cluster = newCluster();
  const held = { holderIdentity: "other", leaseDurationSeconds: 3_600, renewTime: "2026" };
  cluster.seed(LEASE_PATH, { spec: held });
  await file(cluster, "early");
  await using signer = run(cluster);
  await holds("it could lead", () => signer.health.problem === undefined);
  await file(cluster, "late");
  await delay(100);
  ok(!cluster.asked.some((line) => line.includes(POD)), "they are another's");
  strictEqual(signer.health.leading, false);

  cluster.seed(LEASE_PATH, { spec: { ...held, holderIdentity: "" } });
  await holds("both are signed", () => isSigned(cluster, "early") && isSigned(cluster, "late"));
  await holds("it says that it leads", () => signer.health.leading);
  await file(cluster, "third");
  await holds("so is a new one", () => isSigned(cluster, "third"));
});

Deno.test("a leader that stood still signs what it saw before it had renewed its lease", async () => {
  const cluster = newCluster();
  await using _signer = run(cluster);
  await signs(cluster, "r0", "it signs");
  const filed = await requestObject();
  standStill(2 * LEASE_TIMES.renewDeadline);
  cluster.seed(`${REQUESTS_PATH}/r1`, filed); // its watch says so before any timer runs
  await holds("it is signed", () => isSigned(cluster, "r1"));
});

Deno.test("until there is a CA it says what is in the way, and goes on trying", async () => {
  const cluster = newCluster();
  let tries = 0;
  cluster.before = (_method, path) => {
    if (path !== SECRET || ++tries > 2) return;
    throw new ApiError(403, "Forbidden", "GET secrets: 403 no right to the CA");
  };
  await using signer = run(cluster);
  await holds("the problem is told", () => signer.health.problem?.includes("no right") === true);
  await file(cluster, "r");
  await holds("it is signed in the end", () => isSigned(cluster, "r"));
  strictEqual(signer.health.problem, undefined);
});

Deno.test("it ends while it waits for a CA that is never answered, or has just failed", async () => {
  for (const answer of [() => Promise.reject(new ApiError(500, "", "away")), never]) {
    const cluster = newCluster();
    cluster.before = answer;
    const signer = run(cluster);
    await holds("it has tried", () => cluster.asked.length > 0);
    const began = performance.now();
    await signer[Symbol.asyncDispose]();
    ok(performance.now() - began < 5_000, "not when the request has timed out");
    ok(!cluster.objects.has(LEASE_PATH), "it was no candidate");
  }
});

Deno.test("a Secret that cannot be used, or goes, leaves the CA that signs", async () => {
  const cluster = newCluster();
  await using signer = run(cluster);
  await signs(cluster, "r0", "it signs");
  const secret = cluster.objects.get(SECRET);
  ok(secret);
  cluster.seed(SECRET, { ...secret, data: { "tls.crt": "AAAA", "tls.key": "AAAA" } });
  await holds("the problem is told", () => signer.health.problem !== undefined);
  match(signer.health.problem ?? "", /Secret kube-gateway-ca/);
  await signs(cluster, "r1", "it signs all the same");
  cluster.remove(SECRET);
  await signs(cluster, "r2", "without the Secret, too");
  cluster.seed(SECRET, secret);
  await holds("the old one is fine", () => signer.health.problem === undefined);
});

Deno.test("of two Secrets that follow each other fast the last one counts, however long each takes to read", async () => {
  const cluster = newCluster();
  await using signer = run(cluster);
  await signs(cluster, "r0", "it signs");
  const secret = cluster.objects.get(SECRET);
  ok(secret);
  for (let round = 1; round <= 5; round++) {
    cluster.seed(SECRET, secret);
    cluster.seed(SECRET, { ...secret, data: { "tls.crt": "AAAA", "tls.key": "AAAA" } });
    await holds("the problem is told", () => signer.health.problem !== undefined);
    await signs(cluster, `r${round}`, "it signs all the same");
    ok(signer.health.problem !== undefined, "the one that was fine is not the last");
    cluster.seed(SECRET, secret);
    await holds("the last one is fine", () => signer.health.problem === undefined);
  }
});

Deno.test("a request that goes while it is tried is tried no more", async () => {
  const { cluster, tries } = podsAreAway();
  await using _signer = run(cluster);
  await file(cluster, "r");
  await holds("it is tried again", () => tries() >= 3);
  cluster.remove(`${REQUESTS_PATH}/r`);
  await file(cluster, "s");
  await holds("the next one is seen", () => tries() >= 4);
  cluster.remove(`${REQUESTS_PATH}/s`);
  await delay(50); // a try that has begun may end
  const before = tries();
  await delay(600); // three times its next wait
  strictEqual(tries(), before);
  ok(!cluster.asked.includes(`GET ${REQUESTS_PATH}/r`), "it is forgotten, not asked for");
});

Deno.test("who waits for his next try is not tried before because others come and go", async () => {
  const { cluster, tries } = podsAreAway();
  await using _signer = run(cluster);
  await file(cluster, "r");
  await holds("it is tried", () => tries() > 0);
  for (let count = 1; count <= 20; count++) {
    await file(cluster, `other-${count}`, "somebody"); // denied without a look at a pod
    await holds("another is decided", () => reasons(cluster, `other-${count}`).length > 0);
  }
  ok(tries() < 10, `${tries()} tries: the tenth comes after ten seconds`);
});

Deno.test("a request waits for what its pod and its node lack, and is judged again when they have it", async () => {
  for (
    const mend of [
      (cluster: MemoryCluster) => cluster.seed(POD, podObject()),
      (cluster: MemoryCluster) =>
        cluster.seed("/api/v1/nodes/node-a", { spec: { podCIDRs: ["10.1.0.0/24"] } }),
    ]
  ) {
    const cluster = newCluster();
    cluster.seed(POD, podObject({ status: { podIPs: [] } }));
    await using _signer = run(cluster);
    await file(cluster, "r");
    await holds("it is looked at", () => cluster.asked.includes(`GET ${POD}`));
    deepStrictEqual(reasons(cluster, "r"), []);
    mend(cluster);
    await holds("it is signed", () => isSigned(cluster, "r"));
  }
});

Deno.test("a bundle that cannot be written keeps nobody from leading, and is written later", async () => {
  const cluster = newCluster();
  cluster.before = (method, path) => {
    if (path.includes("/configmaps") && method !== "GET") throw new ApiError(500, "", "full");
  };
  await using signer = run(cluster);
  await file(cluster, "r");
  await holds("it leads", () => signer.health.leading);
  strictEqual(isSigned(cluster, "r"), false);
  cluster.before = () => {};
  await holds("it signs", () => isSigned(cluster, "r"));
});

Deno.test("a leader whose renewals are not answered stops acting, and gives nothing out", async () => {
  const cluster = newCluster();
  await using signer = run(cluster);
  await holds("it leads", () => signer.health.leading);
  cluster.before = (_method, path) => path === LEASE_PATH ? never() : undefined;
  await holds("it leads no more", () => !signer.health.leading);
  await file(cluster, "r");
  await delay(150);
  strictEqual(isSigned(cluster, "r"), false);
  cluster.before = () => {};
  await holds("it leads again and signs", () => isSigned(cluster, "r"));
});

Deno.test("at its end it gives the Lease back", async () => {
  const cluster = newCluster();
  const signer = run(cluster);
  await holds("it leads", () => signer.health.leading);
  strictEqual(cluster.objects.get(LEASE_PATH)?.spec.holderIdentity, "me");
  await signer[Symbol.asyncDispose]();
  deepStrictEqual(cluster.objects.get(LEASE_PATH)?.spec.holderIdentity, "");
});

Deno.test("whoever the deny list names from now on gets no certificate, until it names him no more", async () => {
  const cluster = newCluster();
  await using signer = run(cluster);
  await holds("it leads", () => signer.health.leading);
  const list = `/api/v1/namespaces/${NAMESPACE}/configmaps/${DENY_LIST}`;
  const deny = async (name: string, data: Record<string, string>) => {
    cluster.seed(list, { metadata: { name: DENY_LIST, namespace: NAMESPACE }, data });
    await file(cluster, name); // both are told by watches, in whatever order
    await holds(`${name} is decided`, () => reasons(cluster, name).length > 0);
    return reasons(cluster, name);
  };
  let tries = 0;
  while ((await deny(`denied-${++tries}`, { pods: POD_UID })).join() !== "OnDenyList") {
    ok(tries < 20, "it has heard of the list by now");
  }
  while ((await deny(`allowed-${++tries}`, {})).join() !== "PodOnRequestersNode") {
    ok(tries < 40, "it has heard of the list by now");
  }
});

Deno.test("a bundle that is damaged is a problem until it is mended", async () => {
  const cluster = newCluster();
  await using signer = run(cluster);
  await file(cluster, "r");
  await holds("it signs", () => isSigned(cluster, "r"));
  const bundle = cluster.objects.get(BUNDLE_PATH);
  ok(bundle);
  const data = { "ca-bundle.pem": "-----BEGIN CERTIFICATE-----\n" };
  cluster.seed(BUNDLE_PATH, { ...bundle, data });
  await holds("it says so", () => signer.health.problem?.includes("is damaged") === true);
  cluster.seed(BUNDLE_PATH, { ...bundle, metadata: cluster.objects.get(BUNDLE_PATH)?.metadata });
  await holds("it is fine", () => signer.health.problem === undefined);
});

Deno.test("the Lease is given back when nothing is worked on any more", async () => {
  const cluster = newCluster();
  const working = Promise.withResolvers<void>();
  const answered = Promise.withResolvers<void>();
  let holder: unknown;
  cluster.before = async (method, path) => {
    if (method !== "PATCH" || !path.endsWith("/approval")) return;
    working.resolve();
    await answered.promise;
    holder = cluster.objects.get(LEASE_PATH)?.spec.holderIdentity;
  };
  const signer = run(cluster);
  await file(cluster, "r");
  await working.promise;
  const ended = signer[Symbol.asyncDispose]();
  await delay(50); // long enough to give it back too early
  answered.resolve();
  await ended;
  deepStrictEqual([holder, cluster.objects.get(LEASE_PATH)?.spec.holderIdentity], ["me", ""]);
});

function reasons(cluster: MemoryCluster, name: string): string[] {
  const conditions = cluster.objects.get(`${REQUESTS_PATH}/${name}`)?.status?.conditions ?? [];
  return conditions.map(({ reason }: { reason: string }) => reason);
}

function newCluster(): MemoryCluster {
  const cluster = new MemoryCluster();
  cluster.seed(POD, podObject());
  return cluster;
}

function run(
  cluster: MemoryCluster,
  reviewMilliseconds = 20,
): AsyncDisposable & { health: SignerHealth } {
  const stopped = Promise.withResolvers<void>();
  const health = new SignerHealth();
  const running = runSigner(
    {
      api: cluster,
      namespace: NAMESPACE,
      signerName: DEFAULT_SIGNER_NAME,
      agentServiceAccount: "kube-gateway-agent",
      trustDomain: "cluster.local",
      certificateSeconds: 3_600,
      identity: "me",
      propagationMilliseconds: 60_000,
      reviewMilliseconds,
      leaseTimes: LEASE_TIMES,
    },
    stopped.promise,
    health,
  );
  return {
    health,
    [Symbol.asyncDispose]: () => {
      stopped.resolve();
      return running;
    },
  };
}

/** A request that is filed now gets its certificate. */
async function signs(cluster: MemoryCluster, name: string, what: string): Promise<void> {
  await file(cluster, name);
  await holds(what, () => isSigned(cluster, name));
}

/** Files a legal request. */
async function file(cluster: MemoryCluster, name: string, username = AGENT): Promise<void> {
  cluster.seed(`${REQUESTS_PATH}/${name}`, await requestObject(username));
}

/** A legal request, as the API server fills it in. */
async function requestObject(username = AGENT): Promise<object> {
  const { metadata: { annotations }, spec } = await requestBody();
  return {
    metadata: { annotations },
    spec: {
      ...spec,
      username,
      extra: { "authentication.kubernetes.io/node-name": ["node-a"] },
    },
  };
}

/** Nothing runs in this thread for so long, as when its process is frozen. */
function standStill(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

function isSigned(cluster: MemoryCluster, name: string): boolean {
  return cluster.objects.get(`${REQUESTS_PATH}/${name}`)?.status?.certificate !== undefined;
}

async function holds(what: string, condition: () => boolean): Promise<void> {
  await until(condition, 10_000, () => `not in time: ${what}`);
}

/** A cluster whose pods cannot be asked for, and how often they were. */
function podsAreAway(): { cluster: MemoryCluster; tries: () => number } {
  const cluster = newCluster();
  cluster.before = (_method, path) => {
    if (path === POD) throw new ApiError(500, "", "away");
  };
  return { cluster, tries: () => cluster.asked.filter((line) => line.includes(POD)).length };
}

Deno.test("what is wrong with the CA, and that it is well again, stands where all agents read it", async () => {
  const cluster = newCluster();
  await using signer = run(cluster);
  const word = () => wordOf(cluster);
  await holds("it is well", () => word().at !== undefined && word().problem === undefined);
  const secret = cluster.objects.get(SECRET);
  ok(secret);
  cluster.seed(SECRET, { ...secret, data: { "tls.crt": "AAAA", "tls.key": "AAAA" } });
  await holds("it is told", () => word().problem?.includes("Secret kube-gateway-ca") === true);
  cluster.seed(SECRET, secret);
  await holds("it is well again", () => word().problem === undefined);
  strictEqual(signer.health.problem, undefined);
});

Deno.test("a CA that ends soon is told", async () => {
  const cluster = newCluster();
  cluster.seed(SECRET, secretOf(await endsSoon()) as object);
  await using _signer = run(cluster);
  await holds("it is told", () => wordOf(cluster).problem?.includes("expires on") === true);
});

Deno.test("who begins to lead does not wait for the next look at the bundle", async () => {
  const cluster = newCluster();
  const held = { holderIdentity: "other", leaseDurationSeconds: 3_600, renewTime: "2026" };
  cluster.seed(LEASE_PATH, { spec: held });
  await using signer = run(cluster, 3_600_000);
  await holds("it has a CA", () => signer.health.problem === undefined);
  const secret = cluster.objects.get(SECRET);
  ok(secret);
  cluster.seed(SECRET, { ...secret, data: { "tls.crt": "AAAA", "tls.key": "AAAA" } });
  await holds("it follows the Secret", () => signer.health.problem !== undefined);
  cluster.seed(SECRET, secret);
  await holds("it has a CA again", () => signer.health.problem === undefined);
  cluster.seed(LEASE_PATH, { spec: { ...held, holderIdentity: "" } });
  await holds("it leads", () => signer.health.leading && cluster.objects.has(BUNDLE_PATH));
});

/** What the signer says of itself. */
function wordOf(cluster: MemoryCluster): Partial<SignerWord> {
  const { annotations } = (cluster.objects.get(BUNDLE_PATH)?.metadata ?? {}) as unknown as {
    annotations?: Record<string, string>;
  };
  return JSON.parse(annotations?.[WORD_ANNOTATION] ?? "{}");
}
