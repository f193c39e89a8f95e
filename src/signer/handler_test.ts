import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import "reflect-metadata"; // @peculiar/x509 needs it loaded first
import * as x509 from "@peculiar/x509";
import { NAMESPACE, POD_UID, podObject, requestBody } from "../../tests/lab/signing.ts";
import { DEFAULT_SIGNER_NAME, REQUESTS_PATH } from "../identity/signing_names.ts";
import { type DenyList, NOBODY_DENIED } from "../cluster/deny_list.ts";
import { ApiError } from "../kubernetes/errors.ts";
import { AddressBook } from "./address_book.ts";
import { BundleStore } from "./bundle_store.ts";
import { type ClusterCa, openCa, readCa } from "./ca.ts";
import { MemoryCluster, never } from "./cluster_for_tests.ts";
import { make, secretOf } from "./made_cas.ts";
import { RequestHandler } from "./handler.ts";
import { Rotation } from "./rotation.ts";

const AGENT = `system:serviceaccount:${NAMESPACE}:kube-gateway-agent`;
const POD = "/api/v1/namespaces/shop/pods/web-0";
const REQUEST = `${REQUESTS_PATH}/r`;

Deno.test("a request is approved, and then signed with what the API server knows", async () => {
  const { cluster, handler } = await scene();
  strictEqual(await handler.handle("r"), "done");
  deepStrictEqual(conditions(cluster), ["Approved PodOnRequestersNode"]);
  const chain = atob(cluster.objects.get(REQUEST)?.status.certificate);
  const leaf = new x509.X509Certificate(chain);
  const names = leaf.getExtension(x509.SubjectAlternativeNameExtension)?.names.items;
  deepStrictEqual(names?.map(({ value }) => value), [
    "spiffe://cluster.local/ns/shop/sa/web",
    "10.1.0.5",
  ]);
  const before = cluster.asked.length;
  strictEqual(await handler.handle("r"), "done", "at its end");
  strictEqual(cluster.asked.length, before + 1, "it was looked at, and nothing was written");
});

Deno.test("while the API server errs or is silent nothing is decided, and it is tried again", async () => {
  for (
    const answer of [
      () => Promise.reject(new ApiError(503, "", "away")),
      () => Promise.reject(new TypeError("fetch failed")),
      never,
    ]
  ) {
    for (const failing of [`GET ${POD}`, `PATCH ${REQUEST}/approval`, `PATCH ${REQUEST}/status`]) {
      const { cluster, handler, leadFor } = await scene();
      leadFor(200);
      cluster.before = (method, path) => `${method} ${path}` === failing ? answer() : undefined;
      const began = performance.now();
      strictEqual(await handler.handle("r"), "again", failing);
      ok(performance.now() - began < 4_000, "nothing is waited for when its leadership is over");
      const isApproved = failing.endsWith("/status");
      deepStrictEqual(conditions(cluster), isApproved ? ["Approved PodOnRequestersNode"] : []);
      strictEqual(cluster.objects.get(REQUEST)?.status?.certificate, undefined);
      cluster.before = () => {};
      leadFor(5_000);
      strictEqual(await handler.handle("r"), "done", "when it answers again");
      ok(cluster.objects.get(REQUEST)?.status.certificate);
    }
  }
});

Deno.test("whoever leads no more writes nothing, and the next leader ends what was approved", async () => {
  const { cluster, handler, leadFor } = await scene();
  leadFor(0);
  strictEqual(await handler.handle("r"), "done");
  deepStrictEqual(cluster.asked, [], "it is the new leader's");

  leadFor(5_000);
  cluster.before = (method, path) => {
    if (`${method} ${path}` === `PATCH ${REQUEST}/approval`) leadFor(0);
  };
  strictEqual(await handler.handle("r"), "again");
  strictEqual(cluster.objects.get(REQUEST)?.status.certificate, undefined);
  cluster.before = () => {};
  leadFor(5_000);
  strictEqual(await handler.handle("r"), "done");
  ok(cluster.objects.get(REQUEST)?.status.certificate);
  strictEqual(conditions(cluster).length, 1, "approved once");
});

Deno.test("a decision is about what is: a request or a pod that has changed is looked at anew", async () => {
  const { cluster, handler } = await scene();
  cluster.before = (method, path) => {
    if (`${method} ${path}` !== `PATCH ${REQUEST}/approval`) return;
    cluster.before = () => {};
    cluster.seed(REQUEST, cluster.objects.get(REQUEST) ?? {}); // somebody writes in between
  };
  strictEqual(await handler.handle("r"), "again");
  deepStrictEqual(conditions(cluster), []);
  cluster.remove(POD);
  strictEqual(await handler.handle("r"), "done");
  deepStrictEqual(conditions(cluster), ["Denied PodNotFound"]);
  cluster.remove(REQUEST);
  strictEqual(await handler.handle("r"), "done", "it is gone");
});

Deno.test("a pod without addresses in its status is waited for, and denied when that has not helped", async () => {
  const { cluster, handler, addressBook } = await scene({ patienceMilliseconds: 30 });
  cluster.seed(POD, podObject({ status: { podIPs: [] } }));
  addressBook.nodes(nodeWith(["10.9.0.0/24"]));
  strictEqual(await handler.handle("r"), "again");
  deepStrictEqual(conditions(cluster), []);
  while (await handler.handle("r") === "again") await new Promise((done) => setTimeout(done, 5));
  deepStrictEqual(conditions(cluster), ["Denied AddressNotOfNode"]);
});

Deno.test("a node of which nothing is known is no reason to believe what is claimed", async () => {
  const { cluster, handler, addressBook } = await scene({ patienceMilliseconds: 0 });
  cluster.seed(POD, podObject({ status: { podIPs: [] } }));
  addressBook.nodes(new Map());
  strictEqual(await handler.handle("r"), "again");
  strictEqual(await handler.handle("r"), "again", "nor to deny it, however long it takes");
  deepStrictEqual(conditions(cluster), []);
});

Deno.test("where a Node was made anew with another's podCIDRs, neither gets a certificate for them, and both are named", async () => {
  const { cluster, handler, addressBook } = await scene();
  const db = { uid: "db", name: "shop/db", node: "node-c", addresses: ["10.1.9.5"] };
  addressBook.pods(new Map([["shop/db", db]])); // podCIDRs are in use
  addressBook.nodes(
    new Map([
      ...nodeWith(["10.1.0.0/24"]),
      ...nodeWith(["10.1.0.0/24"], "node-b"),
      ...nodeWith(["10.1.9.0/24"], "node-c"),
    ]),
  );
  strictEqual(await handler.handle("r"), "done");
  deepStrictEqual(conditions(cluster), ["Denied RangeContested"]);
  match(cluster.objects.get(REQUEST)?.status.conditions[0].message, /of node-a and of node-b/);
});

Deno.test("before all pods and nodes are known nothing is decided", async () => {
  const { cluster, handler } = await scene({ addressBook: new AddressBook() });
  strictEqual(await handler.handle("r"), "again");
  deepStrictEqual([conditions(cluster), cluster.asked], [[], []]);
});

Deno.test("a request that proves no key is denied, one approved by hand fails", async () => {
  const { cluster, handler } = await scene();
  const { csr } = await otherKey();
  cluster.seed(REQUEST, await request({ csr }));
  strictEqual(await handler.handle("r"), "done");
  deepStrictEqual(conditions(cluster), ["Denied BadProof"]);

  const approved = { conditions: [{ type: "Approved", reason: "ByHand" }] };
  cluster.seed(REQUEST, { ...await request({ csr }), status: approved });
  strictEqual(await handler.handle("r"), "done");
  deepStrictEqual(conditions(cluster), ["Approved ByHand", "Failed BadProof"]);
  strictEqual(cluster.objects.get(REQUEST)?.status.certificate, undefined);
});

Deno.test("a request of no pod is denied for that, whatever its proof; the signer lives on", async () => {
  const { cluster, handler } = await scene();
  cluster.remove(POD);
  cluster.seed(REQUEST, await request(await otherKey()));
  strictEqual(await handler.handle("r"), "done");
  deepStrictEqual(conditions(cluster), ["Denied PodNotFound"]);
  await new Promise((resolve) => setTimeout(resolve, 0)); // a rejection that nobody handles ends the process
});

Deno.test("nothing is approved that cannot be signed yet", async () => {
  const { cluster, handler, rotation } = await scene();
  const bundle = `/api/v1/namespaces/${NAMESPACE}/configmaps`;
  cluster.before = (_method, path) => {
    if (path.startsWith(bundle)) throw new ApiError(403, "Forbidden", "no right to the bundle");
  };
  rotation.offer(await openCa(new MemoryCluster(), NAMESPACE, "cluster.local"));
  strictEqual(await handler.handle("r"), "again");
  deepStrictEqual(conditions(cluster), []);
});

Deno.test("a CA that cannot vouch for a pod leaves it to the one before, and with none before the pod is denied", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const limited = await make(
      directory,
      "limited",
      "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=limited " +
        "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign " +
        "-addext nameConstraints=critical,permitted;IP:192.168.0.0/255.255.0.0",
    );
    const ca = await readCa(secretOf(limited), "cluster.local");
    const { cluster, handler, rotation } = await scene({ propagationMilliseconds: 0 });
    strictEqual(await handler.handle("r"), "done"); // so that its root stays
    cluster.seed(REQUEST, await request());
    rotation.offer(ca);
    strictEqual(await handler.handle("r"), "done");
    const leaf = new x509.X509Certificate(atob(cluster.objects.get(REQUEST)?.status.certificate));
    ok(leaf.issuer !== ca.certificate.subject, "by the one before it");

    const alone = await scene({ ca, propagationMilliseconds: 0 });
    strictEqual(await alone.handler.handle("r"), "done");
    deepStrictEqual(conditions(alone.cluster), ["Denied SigningFailed"]);
    match(alone.cluster.objects.get(REQUEST)?.status.conditions[0].message, /permitted subtree/);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("who is on the deny list gets no certificate: by the pod's UID, or its identity", async () => {
  for (
    const change of [
      { pods: new Set([POD_UID]) },
      { identities: new Set(["spiffe://cluster.local/ns/shop/sa/web"]) },
    ]
  ) {
    const { cluster, handler, deny } = await scene();
    deny(change);
    strictEqual(await handler.handle("r"), "done");
    deepStrictEqual(conditions(cluster), ["Denied OnDenyList"]);
  }
});

Deno.test("a denial names who asked for what", async () => {
  const { cluster, handler } = await scene();
  const body = await request();
  cluster.seed(REQUEST, { ...body, spec: { ...body.spec as object, username: "mallory" } });
  strictEqual(await handler.handle("r"), "done");
  match(cluster.objects.get(REQUEST)?.status.conditions[0].message, /"mallory"/);
});

/** A cluster with a legal request `r` of pod shop/web-0, and a handler that leads. */
async function scene(
  { ca, propagationMilliseconds = 60_000, ...options }: {
    patienceMilliseconds?: number;
    propagationMilliseconds?: number;
    ca?: ClusterCa;
    addressBook?: AddressBook;
  } = {},
) {
  const cluster = new MemoryCluster();
  cluster.seed(POD, podObject());
  let denied = NOBODY_DENIED;
  const deny = (change: Partial<DenyList>) => void (denied = { ...NOBODY_DENIED, ...change });
  const addressBook = new AddressBook();
  addressBook.nodes(nodeWith(["10.1.0.0/24"]));
  addressBook.pods(new Map());
  const rotation = new Rotation(new BundleStore(cluster, NAMESPACE), {
    propagationMilliseconds,
    ttlSeconds: 3_600,
  });
  rotation.offer(ca ?? await openCa(cluster, NAMESPACE, "cluster.local"));
  await rotation.review(1_000);
  cluster.seed(REQUEST, await request());
  cluster.asked.length = 0;
  let until = performance.now() + 5_000;
  const handler = new RequestHandler({
    x509,
    api: cluster,
    settings: { signerName: DEFAULT_SIGNER_NAME, requester: AGENT, ttlSeconds: 3_600 },
    addressBook,
    denied: () => denied,
    trustDomain: "cluster.local",
    rotation,
    candidacy: { remaining: () => Math.max(0, until - performance.now()) },
    ...options,
  });
  const leadFor = (milliseconds: number) => void (until = performance.now() + milliseconds);
  return { cluster, handler, rotation, addressBook, deny, leadFor };
}

function nodeWith(podCidrs: string[], name = "node-a") {
  return new Map([[name, { name, zone: undefined, podCidrs, addresses: [] }]]);
}

/** As the API server fills it in. */
async function request(change: Parameters<typeof requestBody>[0] = {}) {
  const { metadata: { annotations }, spec } = await requestBody(change);
  return {
    metadata: { annotations },
    spec: {
      ...spec,
      username: AGENT,
      extra: { "authentication.kubernetes.io/node-name": ["node-a"] },
    },
  };
}

/** A request whose signature is another key's. */
async function otherKey(): Promise<{ csr: Uint8Array }> {
  const body = await requestBody();
  const pem = atob(body.spec.request as string);
  const csr = new Uint8Array(new x509.Pkcs10CertificateRequest(pem).rawData);
  const at = csr.length - 10;
  csr[at] = (csr[at] ?? 0) ^ 1;
  return { csr };
}

function conditions(cluster: MemoryCluster): string[] {
  const all: { type: string; reason: string }[] =
    cluster.objects.get(REQUEST)?.status?.conditions ?? [];
  return all.map(({ type, reason }) => `${type} ${reason}`);
}
