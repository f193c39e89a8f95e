/** For tests: a cluster with two nodes, agents on them, a pod, and as many signers as one likes. */
import { strictEqual } from "node:assert/strict";
import { newKeyAndRequest } from "../identity/csr.ts";
import { openssl } from "../identity/openssl_command.ts";
import { encodePem } from "../identity/pem.ts";
import { DEFAULT_SIGNER_NAME, TRUST_BUNDLE, USAGES } from "../identity/signing_names.ts";
import { KubernetesApi } from "../kubernetes/api.ts";
import { FakeApiServer, type FakeObject } from "./fake_api_server.ts";
import { LEASE, runSigner, SignerHealth, type SignerOptions } from "./signer.ts";

export const NAMESPACE = "kube-gateway";
export const AGENT = `system:serviceaccount:${NAMESPACE}:kube-gateway-agent`;
export const REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
export const POD_PATH = "/api/v1/namespaces/shop/pods/web-0";
export const BUNDLE_PATH = `/api/v1/namespaces/${NAMESPACE}/configmaps/${TRUST_BUNDLE}`;
export const SECRET_PATH = `/api/v1/namespaces/${NAMESPACE}/secrets/kube-gateway-ca`;
export const LEASE_PATH = `/apis/coordination.k8s.io/v1/namespaces/${NAMESPACE}/leases/${LEASE}`;
export const POD_UID = "3c9a1c1e-8a0f-4c6e-9a69-0c7a9f6a6a11";

/** A server on which node-a's agent may ask for pod shop/web-0, 10.1.0.5. */
export function openScene(): FakeApiServer {
  const server = new FakeApiServer();
  server.users.set("signer", {
    username: "system:serviceaccount:kube-gateway:kube-gateway-signer",
  });
  server.users.set("agent-a", { username: AGENT, extra: nodeClaim("node-a") });
  server.users.set("agent-b", { username: AGENT, extra: nodeClaim("node-b") });
  server.users.set("unbound", { username: AGENT });
  server.users.set("web", {
    username: "system:serviceaccount:shop:web",
    extra: nodeClaim("node-a"),
  });
  server.put("/api/v1/nodes/node-a", {
    metadata: { name: "node-a" },
    spec: { podCIDRs: ["10.1.0.0/24"] },
    status: { addresses: [{ type: "InternalIP", address: "10.1.0.250" }] },
  });
  server.put("/api/v1/nodes/node-b", { metadata: { name: "node-b" }, spec: {} });
  server.put(POD_PATH, pod());
  return server;
}

export function pod(
  spec: Record<string, unknown> = {},
  status: Record<string, unknown> = { phase: "Running", podIPs: [{ ip: "10.1.0.5" }] },
  metadata: Record<string, unknown> = {},
): FakeObject {
  return {
    metadata: { name: "web-0", namespace: "shop", uid: POD_UID, ...metadata },
    spec: { nodeName: "node-a", serviceAccountName: "web", ...spec },
    status,
  };
}

export function apiOf(server: FakeApiServer, token: string): KubernetesApi {
  return new KubernetesApi({
    server: server.url,
    certificateAuthority: undefined,
    token: () => Promise.resolve(token),
  });
}

/** A signer with fast times; `stop` ends it and returns when it has ended. */
export function startSigner(
  server: FakeApiServer,
  changes: Partial<SignerOptions> = {},
): { stop: () => Promise<void>; health: SignerHealth } {
  const stopped = Promise.withResolvers<void>();
  const health = new SignerHealth();
  const running = runSigner(
    {
      api: apiOf(server, "signer"),
      namespace: NAMESPACE,
      signerName: DEFAULT_SIGNER_NAME,
      agentServiceAccount: "kube-gateway-agent",
      trustDomain: "cluster.local",
      certificateSeconds: 3600,
      identity: crypto.randomUUID(),
      propagationMilliseconds: 500,
      reviewMilliseconds: 100,
      leaseTimes: { duration: 1_000, renewDeadline: 600, retry: 100 },
      ...changes,
    },
    stopped.promise,
    health,
  );
  return {
    health,
    stop: () => {
      stopped.resolve();
      return running;
    },
  };
}

/** A legal request for the scene's pod, to be spoilt by the test. */
export async function requestBody(
  { annotations = {}, spec = {}, csr }: {
    annotations?: Record<string, string | undefined>;
    spec?: Record<string, unknown>;
    csr?: Uint8Array;
  } = {},
): Promise<unknown> {
  const der = csr ?? (await newKeyAndRequest()).csr;
  return {
    metadata: {
      generateName: "test-",
      annotations: {
        "kube-gateway.io/pod-namespace": "shop",
        "kube-gateway.io/pod-name": "web-0",
        "kube-gateway.io/pod-uid": POD_UID,
        "kube-gateway.io/pod-addresses": "10.1.0.5",
        ...annotations,
      },
    },
    spec: {
      request: new TextEncoder().encode(encodePem([der], "CERTIFICATE REQUEST")).toBase64(),
      signerName: DEFAULT_SIGNER_NAME,
      usages: USAGES,
      ...spec,
    },
  };
}

/** Files a request and waits for what becomes of it; undefined when nothing does in time. */
export async function fileRequest(
  server: FakeApiServer,
  token: string,
  body: unknown,
  milliseconds = 5_000,
): Promise<FakeObject | undefined> {
  const made = await apiOf(server, token).request("POST", REQUESTS, { body }) as FakeObject;
  return await settled(server, made.metadata.name, milliseconds);
}

export async function settled(
  server: FakeApiServer,
  name: string,
  milliseconds = 5_000,
): Promise<FakeObject | undefined> {
  for (const end = performance.now() + milliseconds; performance.now() < end;) {
    const object = server.objects.get(`${REQUESTS}/${name}`);
    const ended = object?.status?.conditions?.some(({ type }) => type !== "Approved");
    if (ended || object?.status?.certificate) return object;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return undefined;
}

export async function until(what: string, holds: () => boolean, milliseconds = 5_000) {
  for (const end = performance.now() + milliseconds; !holds();) {
    if (performance.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A request made by `openssl req` with these arguments, DER. */
export async function csrOf(args: string): Promise<Uint8Array> {
  const said = await openssl(`req -new -nodes -keyout /dev/null -outform DER ${args}`.split(" "));
  strictEqual(said.ok, true, said.text);
  return new Uint8Array(said.bytes);
}

function nodeClaim(node: string): Record<string, string[]> {
  return { "authentication.kubernetes.io/node-name": [node] };
}
